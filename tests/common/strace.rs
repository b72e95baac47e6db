//! What a piece of code calls the kernel for, told by strace.

use super::{program, run_again, runs_again, skip};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::process::Command;

const LOG: &str = "/tmp/strace.log";
/// Opened before and after each call that counts: it is in the log, and does nothing.
const MARK: &str = "/strace-mark:";

/// Everything between two marks is the library's.
pub fn marked<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let (begin, end) = (CString::new(format!("{MARK}{what}")).unwrap(), CString::new(MARK).unwrap());
    // SAFETY: a string
    unsafe { libc::access(begin.as_ptr(), 0) };
    let result = call();
    // SAFETY: a string
    unsafe { libc::access(end.as_ptr(), 0) };
    result
}

/// Runs this test again under strace; the calls of each marked piece. Memory management is the allocator's business, and
/// F_GETFD what the standard library checks in debug builds before it closes a file.
pub fn trace(workload: fn()) -> BTreeMap<String, Vec<String>> {
    if runs_again() {
        workload();
        std::process::exit(0);
    }
    let mut strace = Command::new("strace");
    strace.args(["-ff", "-qq", "-s", "200", "-o", LOG, "--"]).arg(program());
    let output = run_again(&mut strace).output().unwrap_or_else(|e| skip(&format!("strace: {e}")));
    let err = String::from_utf8_lossy(&output.stderr);
    if err.contains("ptrace") {
        skip(&format!("strace: {err}"));
    }
    assert!(output.status.success(), "{err}");
    // one file for each thread; the marks are in the test's own
    let files = std::fs::read_dir("/tmp").unwrap().flatten();
    let logs = files.filter(|file| file.file_name().to_str().unwrap().starts_with("strace.log."));
    let mut logs = logs.map(|file| std::fs::read_to_string(file.path()).unwrap());
    let log = logs.find(|log| log.contains(MARK)).unwrap();
    let mut pieces = BTreeMap::new();
    let mut piece: Option<(String, Vec<String>)> = None;
    for line in log.lines() {
        if let Some(mark) = line.split_once(MARK).map(|(_, rest)| rest.split('"').next().unwrap()) {
            pieces.extend(piece.take());
            piece = (!mark.is_empty()).then(|| (mark.to_owned(), Vec::new()));
        } else if let Some((_, calls)) = &mut piece {
            let others = ["brk(", "mmap(", "munmap(", "mremap(", "mprotect(", "madvise("];
            if !others.iter().any(|start| line.starts_with(start)) && !line.contains(", F_GETFD)") {
                calls.push(line.to_owned());
            }
        }
    }
    pieces
}

/// "openat ioctl*2"
pub fn summary(calls: &[String]) -> String {
    let mut words: Vec<(&str, u32)> = Vec::new();
    for name in calls.iter().map(|call| call.split('(').next().unwrap()) {
        match words.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => words.push((name, 1)),
        }
    }
    let words = words.iter().map(|(name, count)| if *count == 1 { (*name).to_owned() } else { format!("{name}*{count}") });
    words.collect::<Vec<_>>().join(" ")
}
