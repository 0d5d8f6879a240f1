"""The environment of programs that a daemon starts: where commands are, and a language. Nothing of the daemon's own."""

BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
