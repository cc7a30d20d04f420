# The hub: core and sandboxes, no torch. Boxes are the jail's, made by the kernel inside this container.
#   docker build -t agenthub/hub -f docker/hub.Dockerfile .
# Where no package index can be reached, put wheels of agenthub and what it needs into wheels/ first:
#   pip wheel --wheel-dir wheels .
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE} AS build
COPY . /src
WORKDIR /src
RUN python3 -m venv /opt/agenthub \
 && if [ -d wheels ]; then /opt/agenthub/bin/pip install --no-cache-dir --no-compile --no-index --find-links wheels agenthub; \
    else /opt/agenthub/bin/pip install --no-cache-dir --no-compile .; fi \
 && /opt/agenthub/bin/pip uninstall --quiet --yes pip setuptools

FROM ${BASE_IMAGE}
RUN echo 'agenthub:x:1000:1000:agenthub:/var/lib/agenthub:/bin/sh' >>/etc/passwd \
 && echo 'agenthub:x:1000:' >>/etc/group \
 && mkdir -p /var/lib/agenthub && chown 1000:1000 /var/lib/agenthub
COPY --from=build /opt/agenthub /opt/agenthub
ENV PATH=/opt/agenthub/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 XDG_STATE_HOME=/var/lib
USER 1000:1000
WORKDIR /var/lib/agenthub
VOLUME /var/lib/agenthub
EXPOSE 8700
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8700/readyz', timeout=4)"]
ENTRYPOINT ["agenthub"]
CMD ["serve", "--host", "0.0.0.0", "--log", "/var/lib/agenthub/episodes.sqlite"]
