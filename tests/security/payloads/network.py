"""Ways onto a network. Cases 53 to 57."""

from __future__ import annotations

from tests.security.payloads.attack import attack

__all__ = ["NETWORK"]

NETWORK = (
    attack(
        "53_egress_tcp",
        "import socket\nfor host in ('1.1.1.1', '169.254.169.254', '100.100.100.200', '127.0.0.1', '10.0.0.1'):\n"
        " for port in (53, 80, 2375):\n  try: socket.create_connection((host, port), 0.5)\n"
        "  except OSError: continue\n  print('REACHED', host, port)\nprint('done')",
        "done",
    ),
    attack(
        "54_metadata_address",
        "import socket\nfor family, host in ((socket.AF_INET6, 'fd00:ec2::254'), (socket.AF_INET6, '::1'), "
        "(socket.AF_INET, '8.8.8.8')):\n s = socket.socket(family, socket.SOCK_DGRAM)\n"
        " try:\n  s.sendto(b'x', (host, 53))\n  print('SEEN' if host == '::1' else 'SENT', host)\n"
        " except OSError: pass\nprint('done')",
        "done",
    ),
    attack("56_dns_exfil", "import socket\nsocket.getaddrinfo('example.com', 80)", "gaierror"),
    attack(
        "55_loopback_of_the_host",
        "import socket\nfor family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '0.0.0.0'), "
        "(socket.AF_INET6, '::1'), (socket.AF_INET6, '::ffff:127.0.0.1')):\n s = socket.socket(family)\n"
        " s.settimeout(0.5)\n if s.connect_ex((host, {port})) == 0: print('REACHED', host)\nprint('done')",
        "done",
    ),
    attack(
        "57_proxy_environment",
        "import os, socket, urllib.request\nprint([name for name in os.environ if 'proxy' in name.lower()])\n"
        "os.environ['http_proxy'] = 'http://127.0.0.1:{port}'\n"
        "try: print('REACHED', urllib.request.urlopen('http://10.0.0.1/', timeout=0.5))\n"
        "except OSError as error: print('no way out')",
        "[]\nno way out",
        timeout_s=10.0,
    ),
)
