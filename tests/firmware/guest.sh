#!/usr/bin/env bash
# Runs inside a booted container, as a service of its systemd, and writes down what it sees:
# /results/PHASE.out and /results/PHASE.rc for every phase. test_systemd.py boots it and judges.
set -uo pipefail
cd /
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
export PIP_ROOT_USER_ACTION=ignore
readonly UNIT=edgemask@camera

phase() { # name, command…
    local name=$1 began=$EPOCHREALTIME
    shift
    "$@" >"/results/$name.out" 2>&1 </dev/null
    echo $? >"/results/$name.rc"
    awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", b - a }' >"/results/$name.seconds"
}

# Everything on the disk except what a running system writes by itself.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
        -o -path /results -o -path /wheels -o -path /source -o -path /guest -o -path /var/log \
        -o -path /var/cache -o -path /var/lib/systemd -o -path /var/tmp -o -path /root \
        -o -path '/etc/*-' \) -prune \
        -o -not -name __pycache__ -not -path '*/__pycache__/*' -printf '%p %y %u:%g %m\n' | sort
}

accounts() { sort /etc/passwd && sort /etc/group; }
show() { systemctl show "$UNIT" -p "$1" --value; }

wait_for() { # seconds, command…: 0 as soon as it is true
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}
restarted() { [[ $(show NRestarts) -ge $1 && $(show ActiveState) == active ]]; }
# The log is written beside the service, so a line may come a little after what it tells of.
greeted() { journalctl --no-pager -o cat -u "$1" | grep -q "serving at"; }
segmenting() { curl_status | grep -q '"frames": *[1-9]'; }

# The image has no curl; Python is what edgemask brings.
curl_status() {
    /usr/bin/python3 -c 'import urllib.request as u
print(u.urlopen("http://127.0.0.1:8080/status", timeout=5).read().decode())' 2>&1
}

state() {
    systemctl show "$UNIT" -p ActiveState,SubState,Result,NRestarts,StatusText,MainPID,ExecMainCode
    systemctl show "$UNIT" -p ExecMainStatus,WatchdogUSec,MemoryHigh,MemoryMax,User
}

process() { # who the service runs as, and what it may touch
    local pid
    pid=$(show MainPID)
    grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs|Seccomp|VmHWM):' "/proc/$pid/status"
    id edgemask
    ls -ldn /var/lib/edgemask/camera /run/edgemask/camera /etc/edgemask /etc/edgemask/camera.toml
    nsenter --target "$pid" --mount --setuid "$(id -u edgemask)" --setgid "$(id -g edgemask)" \
        touch /opt/edgemask/mine /usr/mine /etc/edgemask/mine
    nsenter --target "$pid" --mount --setuid "$(id -u edgemask)" --setgid "$(id -g edgemask)" \
        bash -c 'touch /var/lib/edgemask/camera/mine && echo state is writable'
}

kill_it() {
    kill -KILL "$(show MainPID)"
    wait_for 60 restarted 1 && wait_for 60 segmenting && state
}
freeze_it() {
    local pid
    pid=$(show MainPID)
    kill -STOP "$pid"
    wait_for 120 restarted 2 && wait_for 60 segmenting && state && [[ $(show MainPID) != "$pid" ]]
}

second_camera() { # open to the network, so with a token that it makes itself
    printf '[source]\nuri = "synthetic:?live=true&fps=2"\n[serve]\nhost = "0.0.0.0"\nport = 8081\n' \
        >/etc/edgemask/door.toml
    chgrp edgemask /etc/edgemask/door.toml && chmod 640 /etc/edgemask/door.toml
    systemctl start edgemask@door || return
    wait_for 30 greeted edgemask@door
    local token
    token=$(find /var/lib/edgemask/door -name token -type f -printf '%M %u %p\n')
    echo "file $token"
    journalctl --no-pager -o cat -u edgemask@door
    /usr/bin/python3 -c 'import sys, urllib.error, urllib.request as u
for headers in {}, {"Authorization": "Bearer " + open(sys.argv[1]).read().strip()}:
    try:
        request = u.Request("http://127.0.0.1:8081/status", headers=headers)
        print("answer", u.urlopen(request, timeout=5).status)
    except urllib.error.HTTPError as error:
        print("answer", error.code)' "${token##* }"
    systemctl is-active "$UNIT" edgemask@door
}

phase files-before files
phase accounts-before accounts
phase dry-run /source/firmware/install.sh --dry-run
phase files-dry-run files
phase install /source/firmware/install.sh --from /wheels/edgemask-*.whl --no-start
cp /etc/edgemask/camera.toml /results/camera.toml
cat /guest/camera.toml >/etc/edgemask/camera.toml
phase install-again /source/firmware/install.sh # from the folder it lies in, which is read-only
phase settings-kept cmp /guest/camera.toml /etc/edgemask/camera.toml
mv /opt/edgemask/venv/bin/python /opt/edgemask/venv/bin/lost # what doctor's cure is for
phase install-kept /opt/edgemask/share/install.sh
phase verify systemd-analyze verify --man=no "$UNIT.service"
phase security systemd-analyze security --no-pager --threshold=25 "$UNIT.service"
phase active wait_for 60 segmenting
phase state state
phase process process
phase doctor edgemask doctor --json
phase second second_camera
phase kill kill_it
phase freeze freeze_it
phase status systemctl status --no-pager "$UNIT"
phase stop systemctl stop "$UNIT"
phase stopped state
phase enabled systemctl is-enabled "$UNIT"
phase start-again systemctl start "$UNIT"
phase journal journalctl --no-pager -o cat -u "$UNIT"
phase uninstall /opt/edgemask/share/install.sh --uninstall
phase journal-uninstall journalctl --no-pager -o short-monotonic -u "$UNIT" -n 12
phase settings-left find /etc/edgemask -type f
phase units-left systemctl list-units --all --no-legend --plain 'edgemask@*'
phase purge /source/firmware/install.sh --uninstall --purge
phase files-after files
phase accounts-after accounts
