#!/usr/bin/env bash
# Installs edgemask as a service on Raspberry Pi OS or Debian, and takes it away again.
# Everything it does is a function below; `install.sh --dry-run` prints it without doing it.
# shellcheck disable=SC2317  # the functions are called by name at the end
set -euo pipefail

readonly PREFIX=/opt/edgemask VENV=/opt/edgemask/venv SHARE=/opt/edgemask/share
readonly CONFIG=/etc/edgemask STATE=/var/lib/edgemask
readonly UNIT='/etc/systemd/system/edgemask@.service' COMMAND=/usr/local/bin/edgemask
readonly ACCOUNT=edgemask
# The environment takes 250 MB, pip needs room for the downloads, apt's camera packages for theirs.
readonly DISK_MB=700 INODES=15000

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
action=install dry_run=false purge=false start=true camera=true named=false
root='' from='' extras=default name=camera names=()

usage() {
    cat <<'TEXT'
Usage: sudo firmware/install.sh [OPTION…] [NAME]

Installs edgemask under /opt/edgemask and starts the service edgemask@NAME, which reads
/etc/edgemask/NAME.toml. Without NAME, these are the existing services, or else camera. A second
run upgrades; existing settings are never changed.

  --from WHAT     what to install: a wheel, a source folder, or a name for pip such as edgemask==1.0
                  (default: the source folder of this script; for the copy in
                  /opt/edgemask/share, the wheel beside it, which was installed last)
  --extras LIST   optional parts, separated by commas, as in pip install 'edgemask[LIST]'
                  (default: those installed last, or else mqtt, which is small; '' for none)
  --no-camera     leave out picamera2: for USB cameras, network cameras and files
  --no-start      install, but neither enable nor start the service
  --dry-run       print what would be done, and do nothing
  --root DIR      look at the system in DIR, for example a mounted SD card; implies --dry-run
  --uninstall     stop the services and remove everything except the settings in /etc/edgemask
  --purge         with --uninstall: remove the settings as well
  --help          print this

Examples:
  sudo firmware/install.sh
  sudo firmware/install.sh --from edgemask-0.1.0-py3-none-any.whl door
  firmware/install.sh --dry-run
TEXT
}

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'install.sh: error: %s\n' "$*" >&2
    exit 1
}

# Run a command, or only print it.
run() {
    if $dry_run; then
        printf '  %s\n' "${*@Q}" | sed "s/'\([A-Za-z0-9_@%+=:,.\/-]*\)'/\1/g"
    else
        "$@"
    fi
}

parse() {
    while (($#)); do
        case $1 in
            --from | --extras | --root)
                (($# > 1)) || fail "$1 needs a value; see --help"
                printf -v "${1#--}" '%s' "$2"
                shift
                ;;
            --no-camera) camera=false ;;
            --no-start) start=false ;;
            --dry-run) dry_run=true ;;
            --uninstall) action=uninstall ;;
            --purge) purge=true ;;
            --help | -h) usage; exit 0 ;;
            -*) fail "unknown option $1; see --help" ;;
            *)
                ! $named || fail "one NAME at a time, not $name and $1: run it again for the other"
                name=$1 named=true
                ;;
        esac
        shift
    done
    [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_-]*$ ]] ||
        fail "the name '$name' must be letters, digits, _ and -, the first not -: choose another"
    if [[ -n $root ]]; then
        [[ -d $root ]] || fail "there is no folder $root: mount the system first"
        root=$(cd "$root" && pwd)
        dry_run=true
    fi
    if $named && [[ $action == uninstall ]]; then
        fail "--uninstall removes everything, the services of all cameras; to stop one:" \
            "sudo systemctl disable --now edgemask@$name"
    fi
    if $purge && [[ $action == install ]]; then fail "--purge needs --uninstall"; fi
}

# ---------------------------------------------------------------------------------- what is there

release() { # the value of a key in os-release
    local file=$root/etc/os-release
    [[ -r $file ]] || file=$root/usr/lib/os-release
    if [[ -r $file ]]; then sed -n "s/^$1=\"\\{0,1\\}\\([^\"]*\\)\"\\{0,1\\}\$/\\1/p" "$file"; fi
}

board() {
    local file=$root/proc/device-tree/model
    if [[ -r $file ]]; then tr -d '\0' <"$file"; fi
}

# 32 or 64: the class in the ELF header of the Python that will run edgemask. The kernel does not
# count: a 32-bit Raspberry Pi OS boots a 64-bit one.
bits() {
    local program=$root/usr/bin/python3 class
    if [[ -L $program ]]; then program=$root/usr/bin/$(basename "$(readlink "$program")"); fi
    class=$(od -An -tu1 -j4 -N1 "$program" 2>/dev/null | tr -d ' ') || class=''
    case $class in 1) echo 32 ;; 2) echo 64 ;; esac
}

available() { # what df, with these options, says is left where /opt is or will be
    local folder=$root$PREFIX
    while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
    df "$@" "$folder" | awk 'NR == 2 && $2 > 0 { print $4 }'
}

has_systemd() { [[ -d $root/run/systemd/system ]]; }
has_package() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
known_package() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

check_system() {
    local codename version model width room files
    codename=$(release VERSION_CODENAME)
    model=$(board)
    width=$(bits)
    say "system:  $(release PRETTY_NAME), ${width:-?}-bit"
    say "board:   ${model:-not a Raspberry Pi}"
    if [[ -z $width ]]; then
        fail "there is no /usr/bin/python3: sudo apt install python3"
    fi
    if [[ $width == 32 ]]; then
        refuse_32_bit "$codename" "$model"
    fi
    case $codename in
        bookworm | trixie) constraints=$here/constraints-$codename.txt ;;
        bullseye | buster)
            fail "$(release PRETTY_NAME) has a Python older than 3.11: write 64-bit Raspberry" \
                "Pi OS (Bookworm or later) to the card" ;;
        *)
            say "note:    unknown release; NumPy is not held at the version its packages need"
            constraints='' ;;
    esac
    if ! $dry_run; then
        version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            fail "/usr/bin/python3 is Python $version, but edgemask needs 3.11 or later: upgrade the" \
                "system"
    fi
    room=$(available -Pk)
    room=$((${room:-0} / 1024))
    files=$(available -Pi) # empty where the file system does not count them
    say "room:    $room MB under /opt"
    if ((room < DISK_MB)) && [[ ! -d $root$VENV ]]; then
        fail "only $room MB are free under /opt, but $DISK_MB MB are needed: sudo apt clean," \
            "or sudo raspi-config --expand-rootfs and a reboot if the card is larger than the system"
    fi
    if [[ -n $files ]] && ((files < INODES)); then
        fail "the file system has only $files inodes left, but $INODES are needed: remove files"
    fi
}

refuse_32_bit() { # codename, board
    say ''
    say 'This system is 32-bit (its programs are, whatever uname says about the kernel).'
    say 'The runtime that makes int8 networks fast, LiteRT with XNNPACK, has no 32-bit wheel.'
    case $1 in
        bookworm)
            say 'On a 32-bit Bookworm there is only tflite-runtime 2.14, which runs int8 without'
            say 'XNNPACK, many times slower, and needs NumPy 1 and Pillow from apt. By hand:'
            say "  sudo apt install python3-venv python3-numpy python3-pil"
            say "  python3 -m venv --system-site-packages venv"
            say "  venv/bin/pip install '/path/to/edgemask[tflite-runtime]'" ;;
        *) say 'There is no alternative here: no TFLite runtime has wheels for its Python.' ;;
    esac
    case $2 in
        *'Pi Zero W'* | *'Pi Zero Rev'* | *'Pi Model '[AB]* | *'Pi Compute Module Rev'* | \
            *'Pi 2 Model B Rev 1.'[01]*)
            fail "$2 has no 64-bit processor: use a Zero 2 W, 3, 4 or 5" ;;
    esac
    fail 'write the 64-bit Raspberry Pi OS to the card; a Zero 2 W, 3, 4 and 5 all run it'
}

# ---------------------------------------------------------------------------------------- install

install_packages() {
    local wanted=(python3-venv python3-numpy python3-pil) missing=() package
    if $camera && ! $dry_run && [[ $(board) == *Raspberry* ]] && ! known_package python3-picamera2
    then
        apt-get update -q # the lists of a fresh image may be empty
    fi
    if $camera && { $dry_run || known_package python3-picamera2; }; then
        wanted+=(python3-picamera2)
    elif $camera; then
        say 'apt has no python3-picamera2 here, so cameras on the ribbon cable cannot be used;'
        say 'USB cameras, network cameras and files can.'
        camera=false
    fi
    for package in "${wanted[@]}"; do
        if $dry_run || ! has_package "$package"; then missing+=("$package"); fi
    done
    if ((${#missing[@]})); then
        run apt-get update -q
        run env DEBIAN_FRONTEND=noninteractive \
            apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
}

make_account() {
    local group groups=()
    if $dry_run || ! getent passwd "$ACCOUNT" >/dev/null; then
        run useradd --system --user-group --no-create-home --home-dir "$STATE" \
            --shell /usr/sbin/nologin --comment edgemask "$ACCOUNT"
    fi
    for group in video render; do # udev gives the camera's devices to these
        if $dry_run || getent group "$group" >/dev/null; then groups+=("$group"); fi
    done
    if ((${#groups[@]})); then
        run usermod --append --groups "$(IFS=,; echo "${groups[*]}")" "$ACCOUNT"
    fi
}

somebody_else() { # whether the account was there before, for somebody to log in
    grep -s "^$ACCOUNT:" "$root/etc/passwd" | grep -qv ":$STATE:[^:]*$"
}

# An environment that does not run, or was made by the Python of the release before, is made anew.
venv_is_good() {
    [[ -x $VENV/bin/python ]] && "$VENV/bin/python" -c 'import pip' 2>/dev/null &&
        grep -qx 'include-system-site-packages = true' "$VENV/pyvenv.cfg" &&
        [[ $("$VENV/bin/python" -V) == "$(/usr/bin/python3 -V)" ]]
}

# Before anything is changed: a run that knows nothing to install must not clear what works.
choose_package() {
    local kept
    what=$from
    if [[ -z $what && -f $here/../pyproject.toml ]]; then
        what=$(cd "$here/.." && pwd)
    elif [[ -z $what ]]; then # in $SHARE, where the last run has left its wheel
        for kept in "$here"/edgemask-*.whl; do
            if [[ -f $kept ]]; then what=$kept; fi
        done
    fi
    if [[ -z $what ]]; then
        fail "there is neither a source folder nor a wheel beside this script: name one with --from"
    elif [[ $what == *.whl && ! -f $what ]]; then
        fail "there is no wheel $what: check --from"
    fi
}

install_package() {
    local target options=(--quiet --upgrade)
    if [[ -n $constraints ]]; then options+=(--constraint "$constraints"); fi
    if $dry_run || ! venv_is_good; then
        run install -d -m 0755 "$PREFIX"
        # The system's own Python: libcamera's bindings are compiled for that one and no other.
        run /usr/bin/python3 -m venv --clear --system-site-packages "$VENV"
    fi
    if [[ -d $what ]] && ! $dry_run; then
        # A copy, because building leaves files of root's in a folder that is somebody else's.
        target=$work/source
        install -d "$target"
        tar -C "$what" --exclude=./.git --exclude='./.venv*' --exclude=./build --exclude=./dist \
            --exclude=./runs --exclude='*.egg-info' --exclude=__pycache__ -cf - . |
            tar -C "$target" -xf - --no-same-owner
        what=$target
    fi
    # A wheel, whatever was given: it is kept, so that the same can be installed again without that.
    if [[ $extras == default ]]; then
        extras=mqtt
        if [[ -f $root$SHARE/extras ]]; then extras=$(<"$root$SHARE/extras"); fi
    fi
    run "$VENV/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/wheels" "$what"
    wheel=$work/wheels/edgemask-VERSION.whl
    if ! $dry_run; then wheel=$(echo "$work"/wheels/edgemask-*.whl); fi
    run "$VENV/bin/pip" install "${options[@]}" "$wheel${extras:+[$extras]}"
    # pip leaves the same version as it is, even if the wheel differs
    run "$VENV/bin/pip" install --quiet --force-reinstall --no-deps "$wheel"
    run ln -sfn "$VENV/bin/edgemask" "$COMMAND"
}

example_settings() { # every key with its default and what it means
    if $dry_run; then
        echo "$VENV/lib/python3/site-packages/edgemask/assets/edgemask.toml"
    else
        "$VENV/bin/python" -c 'from edgemask.settings import EXAMPLE; print(EXAMPLE)'
    fi
}

install_files() {
    run install -d -m 0755 "$SHARE"
    if [[ ! $here -ef $SHARE ]]; then # kept, so that the checkout may go
        run install -m 0755 "$here/install.sh" "$SHARE/install.sh"
        run install -m 0644 "$here/README.md" "$here/edgemask@.service" \
            "$here/constraints-bookworm.txt" "$here/constraints-trixie.txt" "$SHARE"
    fi
    if ! $dry_run; then printf '%s\n' "$extras" >"$work/extras"; fi
    run install -m 0644 "$work/extras" "$SHARE/extras" # for the next time
    run rm -f "$SHARE"/edgemask-*.whl
    run install -m 0644 "$wheel" "$SHARE"
    run install -m 0644 "$here/edgemask@.service" "$UNIT"
    # Not for everybody: tokens and passwords lie beside the settings.
    run install -d -m 0750 -o root -g "$ACCOUNT" "$CONFIG"
    for name in "${names[@]}"; do
        if [[ -e $root$CONFIG/$name.toml ]]; then
            say "$CONFIG/$name.toml is left unchanged"
        else
            run install -m 0640 -o root -g "$ACCOUNT" "$(example_settings)" "$CONFIG/$name.toml"
        fi
    done
    # What was written before there was an account, by hand or by cloud-init, must be readable too.
    run chgrp -R "$ACCOUNT" "$CONFIG"
}

prove() {
    run "$VENV/bin/python" -c 'import edgemask, numpy; print("numpy", numpy.__version__)'
    if $camera; then
        run "$VENV/bin/python" -c 'import picamera2; print("picamera2 imports")'
    fi
    # As the service's user, who has no home and may write nowhere else.
    run install -d -m 0700 -o "$ACCOUNT" -g "$ACCOUNT" "$work/demo"
    run setpriv --reuid "$ACCOUNT" --regid "$ACCOUNT" --init-groups \
        "$VENV/bin/edgemask" demo --out "$work/demo"
}

start_service() { # name
    local name=$1
    if ! $start; then
        say "not started; to start it: sudo systemctl enable --now edgemask@$name"
        return
    fi
    if has_systemd; then
        run systemctl daemon-reload
        run systemctl enable --quiet "edgemask@$name"
        run systemctl reset-failed "edgemask@$name"
        # Not `start`: a second run has brought new code. Waits for the first READY.
        run systemctl restart "edgemask@$name" ||
            fail "the service does not start: journalctl -u edgemask@$name -n 30 says why"
    else
        run systemctl enable --quiet "edgemask@$name"
        say 'systemd does not run here; the service starts at the next boot'
    fi
}

# Of services that there are, those that start at boot; who has switched one off wants it off.
choose_names() {
    local found=()
    names=("$name")
    if $named; then return; fi
    mapfile -t found < <(instances 'etc/systemd/system/*.wants/edgemask@*.service')
    if ((${#found[@]} == 0)); then mapfile -t found < <(instances "${CONFIG#/}/*.toml"); fi
    if ((${#found[@]})); then
        found=("${found[@]#edgemask@}")
        names=("${found[@]%.service}")
    fi
}

install_all() {
    check_system
    choose_package
    choose_names
    step 'packages'
    install_packages
    step 'account'
    make_account
    step "edgemask in $VENV"
    install_package
    step 'settings and service'
    install_files
    step 'test run'
    prove
    for name in "${names[@]}"; do
        step "service edgemask@$name"
        start_service "$name"
    done
    say ''
    for name in "${names[@]}"; do
        say "settings:  $CONFIG/$name.toml   (then: sudo systemctl restart edgemask@$name)"
        say "log:       journalctl -u edgemask@$name -f"
    done
    say 'problems:  sudo edgemask doctor'
    say "remove it: sudo $SHARE/install.sh --uninstall"
}

# -------------------------------------------------------------------------------------- uninstall

instances() { # patterns below the root
    local file pattern files=()
    for pattern in "$@"; do
        # shellcheck disable=SC2206  # it is a pattern
        files+=("$root"/$pattern)
    done
    for file in "${files[@]}"; do
        file=$(basename "$file")
        case $file in
            '*.toml' | 'edgemask@*.service') ;;
            *.toml) echo "edgemask@${file%.toml}.service" ;;
            *) echo "$file" ;;
        esac
    done | sort -u
}

uninstall_all() {
    local unit
    while read -r unit; do
        if [[ -e $root$UNIT ]]; then
            if has_systemd; then run systemctl stop "$unit"; fi
            run systemctl disable --quiet "$unit"
        fi
        run rm -rf "/etc/systemd/system/$unit.d"
    done < <(instances 'etc/systemd/system/*.wants/edgemask@*.service' "${CONFIG#/}/*.toml")
    run rm -f "$UNIT"
    run rm -rf '/etc/systemd/system/edgemask@.service.d'
    if has_systemd; then
        run systemctl daemon-reload
        run systemctl reset-failed 'edgemask@*'
    fi
    if [[ -L $root$COMMAND && $(readlink "$root$COMMAND") == "$VENV"/* ]]; then run rm "$COMMAND"; fi
    run rm -rf "$PREFIX" "$STATE" /run/edgemask
    if somebody_else; then
        say "the user $ACCOUNT was there before and stays"
    elif $dry_run || getent passwd "$ACCOUNT" >/dev/null; then
        run userdel "$ACCOUNT"
    fi
    if $purge; then
        run rm -rf "$CONFIG"
    elif [[ -d $root$CONFIG ]]; then
        run chown -R root:root "$CONFIG"
        say "your settings stay in $CONFIG; --purge removes them too"
    fi
    say 'apt packages stay; if nothing else uses them: sudo apt purge python3-picamera2 python3-venv'
}

main() {
    parse "$@"
    if ! $dry_run && ((EUID != 0)); then
        fail "must be run as root: sudo $0 ${*@Q}"
    fi
    constraints='' what='' wheel=''
    work=/tmp/edgemask-install
    if ! $dry_run; then
        work=$(mktemp -d)
        chmod 0755 "$work"
        trap 'rm -rf "$work"' EXIT
    fi
    "${action}_all"
}

main "$@"
exit # bash reads a script as it goes, and --uninstall removes this one
