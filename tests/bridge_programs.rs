//! The programs that bridges other than Linux's are asked through: how they are run, and what their failure means.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{IFUP, PERSIST};
use common::bridge::{BridgeApi, INTERFACE_ID_TEXT, Kind, port, spare_tap};
use common::net::{ip, no_news, soon, unchanged};
use common::process::{set_path, stand_in};
use nix::errno::Errno;

fn no_children() {
    let none = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    assert_eq!(none, Err(Errno::ECHILD), "a child was left");
}

fn midonet(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link set br0 mtu 1400");
    stand_in("mm-ctl", "echo \"$@\" >> /tmp/calls; ls /proc/self/fd > /tmp/fds; readlink /proc/self/fd/0 > /tmp/stdin");
    let _leak = std::fs::File::open("/tmp").unwrap();
    let inheritable = nix::unistd::dup(&_leak).unwrap(); // as another thread may have opened it
    let midonet = port("br0").kind(Kind::Midonet);
    let made = api.create_in("vnet0", IFUP, &midonet).unwrap();
    assert_eq!(made.mtu, 1400);
    assert_eq!(std::fs::read_to_string("/tmp/calls").unwrap(), format!("--bind-port {INTERFACE_ID_TEXT} vnet0\n"));
    assert_eq!(std::fs::read_to_string("/tmp/fds").unwrap(), "0\n1\n2\n3\n", "3 is the directory that ls reads");
    assert_eq!(std::fs::read_to_string("/tmp/stdin").unwrap(), "/dev/null\n");
    no_children();
    drop((made, inheritable));

    stand_in("mm-ctl", "echo \"$@\" >> /tmp/calls; echo no such port >&2; exit 3");
    for flags in [IFUP, IFUP | PERSIST] {
        let failure = no_news(|| api.create_in("vnet0", flags, &midonet).unwrap_err());
        let text = format!("internal error: Unable to bind port vnet0 to the virtual port {INTERFACE_ID_TEXT}: no such port");
        assert_eq!((failure.code, failure.text.as_str()), (1, text.as_str()));
    }
    let calls = std::fs::read_to_string("/tmp/calls").unwrap();
    assert!(calls.ends_with(&format!("--unbind-port {INTERFACE_ID_TEXT}\n")), "{calls}");
    spare_tap(api, "tap0");
    api.attach("tap0", &port("br0")).unwrap();
    unchanged("tap0", || api.reattach("tap0", &midonet.clone().mtu(1300), false).unwrap_err());
    no_children();
}

fn missing_programs(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    set_path("/nowhere");
    for (kind, program) in [(Kind::Midonet, "mm-ctl"), (Kind::OpenVswitch, "ovs-vsctl")] {
        let failure = no_news(|| api.create_in("vnet0", IFUP | PERSIST, &port("br0").kind(kind)).unwrap_err());
        assert_eq!((failure.code, failure.errno), (1, Errno::ENOENT), "{failure:?}");
        assert!(failure.text.contains(&format!("there is no program {program} in PATH")), "{failure:?}");
    }
}

fn a_program_that_hangs(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    stand_in("ovs-vsctl", "sleep 1000 & echo $! > /tmp/sleeper; wait");
    let failure = no_news(|| api.create_in("vnet0", IFUP | PERSIST, &port("br0").kind(Kind::OpenVswitch)).unwrap_err());
    assert_eq!((failure.code, failure.errno), (1, Errno::ETIMEDOUT));
    assert!(failure.text.contains("ovs-vsctl did not answer within 8 s"), "{failure:?}");
    let sleeper = std::fs::read_to_string("/tmp/sleeper").unwrap();
    let stat = format!("/proc/{}/stat", sleeper.trim());
    let dying = || {
        let state = std::fs::read_to_string(&stat).unwrap_or_else(|_| "gone) Z".to_owned());
        state.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X'])
    };
    assert!(soon(dying), "its own child was killed with it");
    no_children();
}

fn a_program_that_writes_much_and_leaves_a_child(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    let bytes = common::count(1_000_000, 200_000); // more than a pipe holds
    let write = |letter| format!("head -c {bytes} /dev/zero | tr '\\0' {letter}");
    let script = format!("sleep 1000 & echo $! > /tmp/sleeper; {}; {} >&2; exit 1", write('x'), write('y'));
    stand_in("ovs-vsctl", &script);
    let failure = no_news(|| api.create_in("vnet0", IFUP, &port("br0").kind(Kind::OpenVswitch)).unwrap_err());
    assert_eq!(failure.errno, Errno::EIO, "nobody waits for what it left behind, and that is not killed: {failure:?}");
    assert!(failure.text.len() < 100_000 && failure.text.contains("yyyy"), "{}", failure.text.len());
    let sleeper = std::fs::read_to_string("/tmp/sleeper").unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(sleeper), nix::sys::signal::Signal::SIGKILL).unwrap();
}

each_api!(midonet, missing_programs, a_program_that_hangs, a_program_that_writes_much_and_leaves_a_child);
