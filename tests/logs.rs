//! Where errors and log lines go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{C, NONE, TapApi, last_failure};
use common::{program, run_again, runs_again};
use nix::errno::Errno;
use std::ffi::{CStr, c_char, c_void};
use std::process::Command;
use std::sync::Mutex;
use virnetdevtap::capi::types::virNetDevTapLogPriority;
use virnetdevtap::capi::{
    virNetDevTapDelete, virNetDevTapGetLastErrorCode, virNetDevTapGetLastErrorErrno, virNetDevTapGetLastErrorMessage,
    virNetDevTapSetLogFunc,
};

type Lines = Mutex<Vec<(i32, String)>>;

unsafe extern "C" fn collect(priority: virNetDevTapLogPriority, message: *const c_char, opaque: *mut c_void) {
    // SAFETY: a string for the time of the call
    let text = unsafe { CStr::from_ptr(message) }.to_str().unwrap().to_owned();
    // SAFETY: what `log_to` gave
    let lines = unsafe { &*opaque.cast::<Lines>() };
    lines.lock().unwrap().push((priority as i32, text));
}

fn log_to(lines: &'static Lines) {
    // SAFETY: the lines live for ever
    unsafe { virNetDevTapSetLogFunc(Some(collect), std::ptr::from_ref(lines).cast_mut().cast()) };
}

fn message() -> String {
    // SAFETY: the library's string, valid until the next call of that function in this thread
    unsafe { CStr::from_ptr(virNetDevTapGetLastErrorMessage()) }.to_str().unwrap().to_owned()
}

fn a_log_function() {
    static LINES: Lines = Mutex::new(Vec::new());
    static OTHER: Lines = Mutex::new(Vec::new());
    log_to(&LINES);
    drop(C.one("tap0", common::api::PERSIST));
    C.delete("tap0", None).unwrap();
    C.delete("missing0", None).unwrap();
    C.delete("lo", None).unwrap_err();
    let lines = std::mem::take(&mut *LINES.lock().unwrap());
    let error = format!("virNetDevTapDelete: {}", last_failure().text);
    let expected = [(2, "created device: 'tap0'".to_owned()), (2, "delete device: 'tap0'".to_owned()), (4, error)];
    assert_eq!(lines, expected);
    std::thread::scope(|scope| scope.spawn(|| drop(C.one("tap0", NONE))).join().unwrap());
    assert_eq!(LINES.lock().unwrap().len(), 1, "lines of all threads");
    log_to(&OTHER);
    drop(C.one("tap0", NONE));
    assert_eq!((LINES.lock().unwrap().len(), OTHER.lock().unwrap().len()), (1, 1));
    // SAFETY: NULL ends it
    unsafe { virNetDevTapSetLogFunc(None, std::ptr::null_mut()) };
    drop(C.one("tap0", NONE));
    assert_eq!(OTHER.lock().unwrap().len(), 1);
}

unsafe extern "C" fn call_us_back(_: virNetDevTapLogPriority, message: *const c_char, _: *mut c_void) {
    // SAFETY: a string for the time of the call
    if unsafe { CStr::from_ptr(message) }.to_bytes().contains(&b'/') {
        return; // our own error below
    }
    // SAFETY: a string, and NULL for the default
    assert_eq!(unsafe { virNetDevTapDelete(c"a/b".as_ptr(), std::ptr::null()) }, -1);
    // SAFETY: NULL ends it
    unsafe { virNetDevTapSetLogFunc(None, std::ptr::null_mut()) };
    Errno::EXFULL.set();
}

/// A log function may call the library, and may spoil errno.
fn a_log_function_that_calls_the_library() {
    // SAFETY: a function that takes no opaque
    unsafe { virNetDevTapSetLogFunc(Some(call_us_back), std::ptr::null_mut()) };
    // SAFETY: a string, and NULL for the default
    assert_eq!(unsafe { virNetDevTapDelete(c"lo".as_ptr(), std::ptr::null()) }, -1);
    assert_eq!(Errno::last(), Errno::EINVAL);
}

fn the_last_error_is_the_threads_own() {
    assert_eq!((virNetDevTapGetLastErrorCode(), virNetDevTapGetLastErrorErrno(), message().as_str()), (0, 0, "no error"));
    C.delete("lo", None).unwrap_err();
    let ours = last_failure();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!((virNetDevTapGetLastErrorCode(), virNetDevTapGetLastErrorErrno(), message().as_str()), (0, 0, "no error"));
            let theirs = C.delete("a/b", None).unwrap_err();
            assert_eq!((theirs.code, theirs.errno), (8, Errno::EINVAL));
        });
    });
    assert_eq!((virNetDevTapGetLastErrorCode(), message()), (ours.code, ours.text.clone()));
    drop(C.one("tap0", NONE));
    assert_eq!(message(), ours.text, "a success does not reset it");
    assert_eq!(C.stats("missing0").unwrap_err().text, message());
}

/// Runs this very test once more with the variable set; that run only makes noise.
fn debugging_by_environment() {
    if runs_again() {
        drop(C.one("tap0", NONE));
        C.delete("lo", None).unwrap_err();
        return;
    }
    for (value, lines) in [("1", 2), ("0", 0), ("", 0)] {
        let mut again = Command::new(program());
        let output = run_again(&mut again).env("VIRNETDEVTAP_DEBUG", value).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        let ours: Vec<_> = text.lines().filter(|line| line.starts_with("virnetdevtap: ")).collect();
        assert_eq!(ours.len(), lines, "{text}");
        if lines > 0 {
            assert_eq!(ours[0], "virnetdevtap: info: created device: 'tap0'");
            assert!(ours[1].starts_with("virnetdevtap: error: virNetDevTapDelete: "), "{text}");
        }
    }
}

netns_tests![a_log_function, a_log_function_that_calls_the_library, the_last_error_is_the_threads_own, debugging_by_environment,];
