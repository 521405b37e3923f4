"""The operator's commands, for `docker exec` as root. Each begins by giving up NET_ADMIN (privileges.py)."""
