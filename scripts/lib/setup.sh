# Sourced by the scripts: need COMMAND... sees to it that the commands are there.
# On Debian and Ubuntu it installs what is missing and says so; elsewhere it says what to install.

debian_package() {
    case $1 in
    abidiff) echo abigail-tools ;;
    ip | bridge | tc) echo iproute2 ;;
    libasan) gcc -dumpversion | sed 's/\..*//; s/.*/libgcc-&-dev/' ;;
    libc) echo libc6-dev ;;
    llvm-symbolizer) echo llvm ;;
    nm | readelf | objdump) echo binutils ;;
    ninja) echo ninja-build ;;
    qemu-system-x86_64) echo qemu-system-x86 ;;
    ovs-vsctl) echo openvswitch-switch ;;
    ping) echo iputils-ping ;;
    unshare | setpriv) echo util-linux ;;
    venv) echo python3-venv ;;
    *) echo "$1" ;;
    esac
}

have() {
    case $1 in
    libasan) [ "$(gcc -print-file-name=libasan.so)" != libasan.so ] ;;
    libc) echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 ;;
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
    else
        echo "This needs root, and there is no sudo: $*" >&2
        return 1
    fi
}

install_packages() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    if ! command -v apt-get >/dev/null; then
        echo "Please install (Debian's names of the packages): $*" >&2
        return 1
    fi
    echo "Installing packages: $*"
    # the package lists of a fresh machine may be missing or old
    as_root "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null 2>&1 ||
        { as_root "${apt[@]}" update </dev/null >/dev/null &&
            as_root "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null; }
}

need() {
    local command packages=()
    for command in "$@"; do
        have "$command" || packages+=("$(debian_package "$command")")
    done
    [ ${#packages[@]} = 0 ] && return
    readarray -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    install_packages "${packages[@]}"
}

# want COMMAND...: as need, but a machine that does not have them goes on without
want() {
    local command
    for command in "$@"; do
        need "$command" || echo "Going on without $command."
    done
}

older() { # VERSION THAN
    [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

need_rust() { # [COMPONENT...]
    local component version
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! command -v cargo >/dev/null; then
        echo 'Please install Rust 1.88 or newer: https://rustup.rs' >&2
        return 1
    fi
    version=$(cargo --version | cut -d ' ' -f 2)
    if older "$version" 1.88; then
        echo "Rust $version is too old, please install 1.88 or newer: https://rustup.rs" >&2
        return 1
    fi
    for component in "$@"; do
        if ! cargo "$component" --version >/dev/null 2>&1; then
            echo "Installing Rust component: $component"
            rustup component add "${component/#fmt/rustfmt}" || return 1
        fi
    done
}

# meson 1.0 or newer: the system's, else one of our own under target/
need_meson() {
    local tools=$PWD/target/tools
    need python3 ninja pkg-config || return 1
    have meson || install_packages meson || return 1
    older "$(meson --version)" 1.0.0 || return 0
    if [ ! -x "$tools/bin/meson" ]; then
        echo "meson $(meson --version) is too old: installing a newer one in target/tools"
        need venv && python3 -m venv "$tools" && "$tools/bin/pip" -q install 'meson>=1.0,<2' || return 1
    fi
    PATH=$tools/bin:$PATH
}
