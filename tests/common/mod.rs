//! A machine of its own for each test, on the real kernel.
//!
//! [`in_netns`] runs a test in a process of its own with its own network, mount and process namespaces (and user namespace,
//! for those who are not root), so a test may count its open files, change its limits, its user or its environment, and
//! call its devices whatever it likes. [`each_api!`] runs one test against the Rust API and against the C functions.
#![allow(dead_code)] // each test binary uses another part of this

pub mod api;
pub mod bridge;
pub mod faults;
pub mod hostile;
pub mod ip;
pub mod link;
pub mod machine;
pub mod macvtap;
pub mod net;
pub mod ovs;
pub mod process;
pub mod random;
pub mod state;
pub mod steps;
pub mod strace;
#[cfg(target_arch = "x86_64")]
pub mod tamper;
pub mod tun;
pub mod vhost;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{alarm, getegid, geteuid};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// Tells the child which test it is there for.
const CHILD: &str = "VIRNETDEVTAP_TEST_CHILD";
/// Set for a test that runs itself once more.
const AGAIN: &str = "VIRNETDEVTAP_TEST_AGAIN";
/// Tells the child which share of the work is its.
const SHARE: &str = "VIRNETDEVTAP_TEST_SHARE";
/// The file by which the shares of a work agree on what it is. See [`agreed`].
const AGREED: &str = "VIRNETDEVTAP_TEST_AGREED";
/// Into so many shares much work is divided: the runs wait most of their time.
pub const SHARES: usize = 16;
/// After this many seconds a test is hanging.
const LIMIT: u32 = 240;
/// The same for one that is to run for long.
const DEEP_LIMIT: u32 = 3600;

/// Makes a `#[test]` of each function `fn name()`, run by [`in_netns`].
#[macro_export]
macro_rules! netns_tests {
    ($($name:ident),+ $(,)?) => {
        mod netns {
            $(#[test]
            fn $name() {
                $crate::common::in_netns(concat!(module_path!(), "::", stringify!($name)), || super::$name());
            })+
        }
    };
}

/// [`netns_tests!`] for tests with so many runs that several processes share them, where all are to be made. See [`share`].
#[macro_export]
macro_rules! shared_netns_tests {
    ($($name:ident),+ $(,)?) => {
        mod netns {
            $(#[test]
            fn $name() {
                let shares = if $crate::common::is_deep() { $crate::common::SHARES } else { 1 };
                $crate::common::in_namespaces(concat!(module_path!(), "::", stringify!($name)), shares, || super::$name());
            })+
        }
    };
}

/// Makes two `#[test]`s of each function `fn name(api: &dyn TapApi)`, run by [`in_netns`].
#[macro_export]
macro_rules! each_api {
    ($($name:ident),+ $(,)?) => {
        mod rust {
            $(#[test]
            fn $name() {
                let api = &$crate::common::api::Rust;
                $crate::common::in_netns(concat!(module_path!(), "::", stringify!($name)), || super::$name(api));
            })+
        }
        mod c {
            $(#[test]
            fn $name() {
                let api = &$crate::common::api::C;
                $crate::common::in_netns(concat!(module_path!(), "::", stringify!($name)), || super::$name(api));
            })+
        }
    };
}

/// Runs `body` in a child process: a new network namespace without any device but `lo` (which is down), a mount
/// namespace with a sysfs that shows it and an empty /tmp; a process namespace with its /proc, where such may be mounted.
/// Whoever is not root gets a user namespace, too. Fails if `body` leaves a file open; a process that it leaves is killed.
/// Where there are no namespaces or no /dev/net/tun, says so on standard error and passes.
///
/// `path` is the path of the test function, the binary's name in front.
pub fn in_netns(path: &str, body: impl FnOnce()) {
    in_namespaces(path, 1, body);
}

/// [`in_netns`] for several processes that share the work, each in namespaces of its own.
pub fn in_namespaces(path: &str, shares: usize, body: impl FnOnce()) {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    if std::env::var(CHILD).as_deref() == Ok(path) {
        alarm::set(if is_deep() { DEEP_LIMIT } else { LIMIT });
        set_up();
        let before = process::open_files();
        body();
        assert_eq!(before, process::open_files(), "files left open");
        return;
    }
    let agreed = (shares > 1).then(|| memfd_create("agreed", MFdFlags::empty()).unwrap());
    let children: Vec<_> = (0..shares).map(|share| start(name, path, share, shares, agreed.as_ref())).collect();
    let mut sums: Vec<(String, Vec<u64>)> = Vec::new();
    let mut failures = Vec::new();
    for (share, child) in children.into_iter().enumerate() {
        match finish(name, path, share, child.and_then(Child::wait_with_output)) {
            Ok(parts) => parts.into_iter().for_each(|(text, numbers)| match sums.iter_mut().find(|(known, _)| *known == text) {
                Some((_, sums)) => sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number),
                None => sums.push((text, numbers)),
            }),
            Err(failure) => failures.push(failure),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for (text, sums) in sums {
        figure(&sums.iter().fold(text, |text, sum| text.replacen("{}", &sum.to_string(), 1)));
    }
}

fn start(name: &str, path: &str, share: usize, shares: usize, agreed: Option<&OwnedFd>) -> std::io::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?);
    if let Some(agreed) = agreed {
        child.env(SHARE, format!("{share}/{shares}")).env(AGREED, agreed.as_raw_fd().to_string());
    }
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, path);
    child.env_remove("VIRNETDEVTAP_DEBUG").env_remove(AGAIN);
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let maps = [("uid_map", geteuid().as_raw()), ("gid_map", getegid().as_raw())].map(|(file, id)| (file, format!("0 {id} 1")));
    let own_processes = has_process_namespaces();
    let enter = move || {
        enter_namespaces(&maps)?;
        if own_processes { process::enter_namespace() } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure makes system calls only, and allocates nothing
    unsafe { child.pre_exec(enter) };
    child.spawn()
}

/// What a process has measured of a [`figure_of_all`], or how it has failed.
fn finish(name: &str, path: &str, share: usize, output: std::io::Result<Output>) -> Result<Vec<(String, Vec<u64>)>, String> {
    let output = match output {
        Ok(output) => output,
        Err(e) => {
            say_skipped(path, &format!("no namespaces: {e}"));
            return Ok(Vec::new());
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let tells = |line: &&str| line.starts_with("SKIP: ") && share == 0 || line.starts_with("FIGURE: ");
    for line in err.lines().filter(tells) {
        say(line);
    }
    if !output.status.success() {
        return Err(format!("{}\n{out}\n{err}", output.status));
    }
    assert!(err.contains("SKIP: ") || out.contains("1 passed"), "no such test: {name}\n{out}");
    let parts = err.lines().filter_map(|line| line.strip_prefix("PART: "));
    Ok(parts.map(|part| serde_json::from_str(part).unwrap()).collect())
}

fn enter_namespaces(maps: &[(&str, String)]) -> std::io::Result<()> {
    let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if unshare(own).is_err() {
        unshare(own | CloneFlags::CLONE_NEWUSER)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        maps.iter().try_for_each(|(file, map)| match *file {
            "uid_map" => std::fs::write("/proc/self/uid_map", map),
            _ => std::fs::write("/proc/self/gid_map", map),
        })?;
    }
    let none = None::<&str>;
    Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
}

/// Not everybody may mount a /proc for them; in a slow virtual machine they take 30 ms each.
fn has_process_namespaces() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    let try_it = || Command::new("unshare").args(["--pid", "--mount-proc", "--fork", "true"]).stderr(Stdio::null()).status();
    *MAY.get_or_init(|| geteuid().is_root() && !is_slow() && try_it().is_ok_and(|status| status.success()))
}

fn set_up() {
    if runs_again() {
        return; // in the namespaces of the test that started it
    }
    for (kind, target) in [("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        if let Err(e) = mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            skip(&format!("cannot mount {kind} on {target}: {e}"));
        }
    }
    if let Err(e) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        skip(&format!("/dev/net/tun: {e}"));
    }
}

/// This program, wherever it is and whatever is mounted over it.
pub fn program() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// The arguments and the environment to run the test of this process once more, in the same namespaces: under strace,
/// say, or with other variables. [`runs_again`] tells the two apart.
pub fn run_again(command: &mut Command) -> &mut Command {
    command.args(std::env::args_os().skip(1)).env(AGAIN, "1").stdin(Stdio::null())
}

pub fn runs_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Ends the test that runs in this process, and says why.
pub fn skip(reason: &str) -> ! {
    say_skipped(&std::env::var(CHILD).unwrap_or_default(), reason);
    std::process::exit(0)
}

fn say_skipped(path: &str, reason: &str) {
    say(&format!("SKIP: {path}: {reason}"));
}

/// Of the numbered pieces of a work, those that this process does.
pub fn share<T>(pieces: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let share = std::env::var(SHARE).ok();
    let (first, step) = share.as_deref().and_then(|share| share.split_once('/')).unwrap_or(("0", "1"));
    pieces.skip(first.parse().unwrap()).step_by(step.parse().unwrap())
}

/// What the first of the processes that share a work has come to call `what`; `mine`, if that is this one.
pub fn agreed(what: &str, mine: Value) -> Value {
    let Ok(fd) = std::env::var(AGREED) else { return mine };
    // opened anew: a lock is an open file's, not a descriptor's
    let file = File::options().read(true).append(true).open(format!("/proc/self/fd/{fd}")).unwrap();
    let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let mut lines = String::new();
    file.read_to_string(&mut lines).unwrap();
    for line in lines.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line["what"] == what {
            return line["is"].take();
        }
    }
    writeln!(file, "{}", json!({ "what": what, "is": mine })).unwrap();
    mine
}

/// A measured value for the reader of the test's output; it decides nothing.
pub fn figure(text: &str) {
    say(&format!("FIGURE: {text}"));
}

/// The same where several processes share the work: each `{}` in the text is the sum of what they have come to.
pub fn figure_of_all(text: &str, numbers: &[usize]) {
    say(&format!("PART: {}", json!([text, numbers])));
}

/// Writes a line where `cargo test` does not swallow it.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// `many`, or `few` on a slow virtual machine.
pub fn count(many: usize, few: usize) -> usize {
    if is_slow() { few } else { many }
}

/// Is there time for many more rounds?
pub fn is_deep() -> bool {
    std::env::var("VIRNETDEVTAP_DEEP").as_deref() == Ok("1") && !is_slow()
}

fn is_slow() -> bool {
    std::env::var("VIRNETDEVTAP_TEST_VM").as_deref() == Ok("1")
}

/// [`count`], or as many as one would wish where there is time.
pub fn rounds(deep: usize, many: usize, few: usize) -> usize {
    if is_deep() { deep } else { count(many, few) }
}
