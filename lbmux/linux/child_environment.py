"""The environment of programs that a daemon starts: PATH and a language, without the daemon's own variables."""

BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
