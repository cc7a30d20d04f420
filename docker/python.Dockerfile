# The image `python` of the docker and gvisor isolations: Python and an unprivileged user, nothing of agenthub.
#   docker build -t agenthub/python -f docker/python.Dockerfile docker
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}
RUN echo 'agent:x:1000:1000:agent:/workspace:/bin/sh' >>/etc/passwd && echo 'agent:x:1000:' >>/etc/group \
 && mkdir -p /workspace && chown 1000:1000 /workspace
ENV PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
WORKDIR /workspace
USER 1000:1000
CMD ["python3"]
