#!/bin/bash
# Job: shell.sh. The two paths and a shell, for a person; /rig/bin/vhost-mpath is the daemon.
. lib/say.sh
. rig.d/paths.sh
make_paths 256
say "a shell in the rig; 'exit' powers off"
cd /rig && setsid -c bash -i </dev/console >/dev/console 2>&1
