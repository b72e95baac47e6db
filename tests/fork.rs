//! A process that forks in the middle of the library's calls, as a daemon with many threads does all the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, Outcome, PERSIST, Rust, TapApi};
use common::net::{gone, only, soon};
use common::process::{Forked, open_files, threads};
use common::state::{DIR, check, discard, hold, list, nothing_recorded, restore, save};
use common::{figure, rounds, tun};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, alarm, getppid};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use virnetdevtap::host::set_log_func;

const FLAGS: u16 = tun::TAP | tun::NO_PI;
/// After this many seconds a child is taken for dead-locked, and ends.
const DEADLOCK: u32 = 30;

/// The rounds of a test that has no more time than this.
fn in_time(many: usize) -> impl Iterator<Item = usize> {
    let end = Instant::now() + Duration::from_secs(rounds(40, 12, 5) as u64);
    (0..many).take_while(move |_| Instant::now() < end)
}

/// A child that was forked meanwhile has the tap, too, until it ends: to be asked again.
fn patient<T>(call: impl Fn() -> Outcome<T>) -> T {
    loop {
        match call() {
            Err(failure) if failure.errno == Errno::EBUSY => {}
            result => return result.unwrap(),
        }
    }
}

/// One life of a tap, with every sort of file and lock that the library takes meanwhile.
fn life(api: &dyn TapApi, name: &str) {
    tun::make(name, FLAGS);
    patient(|| save(name));
    let made = patient(|| api.create(Some(name), None, 1, ALLOW_EXISTING));
    hold(name, &made.queues).unwrap();
    check(name).unwrap();
    api.stats(name).unwrap();
    assert!(list().iter().any(|recorded| recorded == name));
    drop(made);
    patient(|| restore(name));
    patient(|| api.delete(name, None));
    let generated = api.create(None, None, 2, PERSIST).unwrap();
    let name = generated.name.clone();
    drop(generated);
    patient(|| api.delete(&name, None));
}

/// Lives on in several threads, and calls what does little else than take a lock, as often as can be, until `main` is over.
fn amid_calls<T>(main: impl FnOnce() -> T) -> (T, usize) {
    let (stop, lives) = (AtomicBool::new(false), AtomicUsize::new(0));
    let until_stopped = |mut work: Box<dyn FnMut()>| {
        while !stop.load(Ordering::Relaxed) {
            work();
        }
    };
    let result = std::thread::scope(|scope| {
        let (until_stopped, lives) = (&until_stopped, &lives);
        for (thread, api) in [&Rust as &dyn TapApi, &C, &Rust].into_iter().enumerate() {
            scope.spawn(move || {
                until_stopped(Box::new(move || {
                    life(api, &format!("busy{thread}"));
                    lives.fetch_add(1, Ordering::Relaxed);
                }));
            });
        }
        scope.spawn(|| until_stopped(Box::new(|| set_log_func(Some(Arc::new(|_, _| {}))))));
        scope.spawn(|| until_stopped(Box::new(|| discard("none0").unwrap())));
        let result = catch_unwind(AssertUnwindSafe(main));
        stop.store(true, Ordering::Relaxed); // the threads go on until then, whatever has happened
        result.unwrap_or_else(|panic| resume_unwind(panic))
    });
    set_log_func(None);
    (result, lives.into_inner())
}

/// What `ls -l` says of the files of a program that was started just now; it opens its own list of them.
fn files_of_a_program(by_fork: bool) -> String {
    let mut ls = Command::new("ls");
    ls.args(["-l", "/proc/self/fd"]).stdin(Stdio::null()).stderr(Stdio::null());
    if by_fork {
        // SAFETY: does nothing; with it, the standard library forks instead of using posix_spawn()
        unsafe { ls.pre_exec(|| Ok(())) };
    }
    let output = ls.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// No program that is started amid calls has a file of the library's.
fn programs_started_amid_calls() {
    let ours: Vec<_> = open_files().into_iter().map(|fd| fd.to_string()).collect();
    let (count, lives) = amid_calls(|| {
        let mut count = 0;
        for i in in_time(rounds(3000, 200, 30)) {
            count += 1;
            let text = files_of_a_program(i % 2 == 0);
            for line in text.lines().filter(|line| line.contains(" -> ")) {
                let (left, target) = line.split_once(" -> ").unwrap();
                let fd = left.rsplit(' ').next().unwrap().to_owned();
                let own = ours.contains(&fd) || target.contains("/fd") || ["0", "1", "2"].contains(&fd.as_str());
                assert!(own, "a program has {line}");
            }
        }
        count
    });
    figure(&format!("{count} programs started amid {lives} lives of taps: none has a file of the library's"));
    nothing_recorded();
    assert!(only(&[]));
}

/// A child that goes on with the library does all that its parent can.
fn children_that_go_on() {
    let mut slowest = Duration::ZERO;
    let (count, lives) = amid_calls(|| {
        let mut count = 0;
        for i in in_time(rounds(3000, 200, 30)) {
            count += 1;
            let start = Instant::now();
            let child = Forked::run(|| {
                alarm::set(DEADLOCK);
                if i % 8 == 0 {
                    life(if i % 16 == 0 { &Rust } else { &C }, "child0");
                } else {
                    discard("child0").unwrap();
                    set_log_func(None);
                    save("none1").unwrap();
                    restore("none1").unwrap();
                }
            });
            child.join();
            slowest = slowest.max(start.elapsed());
        }
        count
    });
    figure(&format!("{count} children that fork only amid {lives} lives of taps, the slowest took {} ms", slowest.as_millis()));
    nothing_recorded();
    assert!(only(&[]));
}

/// A manager is killed while its threads change records; a child that it has forked meanwhile still gets at them.
fn orphans() {
    // SAFETY: a system call without pointers
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    let test = Pid::this();
    let mut count = 0;
    for i in in_time(rounds(500, 60, 10)) {
        count += 1;
        let manager = Forked::run(|| {
            for thread in 0..4 {
                std::thread::spawn(move || {
                    loop {
                        let _ = save(&format!("none{thread}")); // a directory without room for it is not what this is about
                        let _ = discard(&format!("none{thread}"));
                    }
                });
            }
            std::thread::sleep(Duration::from_micros(500 + 137 * (i as u64 % 17)));
            let manager = Pid::this();
            let _orphan = Forked::run(|| {
                alarm::set(DEADLOCK);
                while getppid() == manager {
                    std::thread::yield_now();
                }
                assert_eq!(getppid(), test);
                save("orphan0").unwrap();
                discard("orphan0").unwrap();
            });
            kill(manager, Signal::SIGKILL).unwrap();
        });
        assert_eq!(waitpid(manager.pid(), None).unwrap(), WaitStatus::Signaled(manager.pid(), Signal::SIGKILL, false));
        let orphan = waitpid(None::<Pid>, None).unwrap();
        assert!(matches!(orphan, WaitStatus::Exited(_, 0)), "round {i}: {orphan:?}");
    }
    figure(&format!("{count} managers killed amid changes of records, none leaves the directory locked to its child"));
    for thread in 0..4 {
        discard(&format!("none{thread}")).unwrap();
    }
    nothing_recorded();
    std::fs::remove_dir(DIR).unwrap();
}

/// The thread in which a deleted device is waited for ends with that; a child does not have it, and an exit does not wait
/// for more.
fn thread_of_a_removal() {
    let before = threads();
    for i in in_time(rounds(200, 20, 3)) {
        let api: &dyn TapApi = if i % 2 == 0 { &Rust } else { &C };
        tun::make("tap0", FLAGS);
        api.delete("tap0", None).unwrap();
        let child = Forked::run(|| {
            assert_eq!(threads(), 1);
            tun::make("child0", FLAGS);
            api.delete("child0", None).unwrap(); // and ends at once
        });
        child.join();
        assert!(gone("child0"));
        assert!(gone("tap0"));
    }
    assert!(soon(|| threads() == before), "{} threads, {before} before", threads());
}

netns_tests![programs_started_amid_calls, children_that_go_on, orphans, thread_of_a_removal];
