//! Between the library and its C caller: results become return values, and no panic gets through.

use crate::error::{Error, Result};
use crate::host;
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `body`. On an error reports it under the name of the C function, sets errno and returns `failure`.
pub(super) fn fence<T>(function: &str, failure: T, body: impl FnOnce() -> Result<T>) -> T {
    let (mut result, mut body) = (failure, Some(body));
    report_failure(function, &mut || {
        if let Some(body) = body.take() {
            result = body()?;
        }
        Ok(())
    });
    result
}

fn report_failure(function: &str, body: &mut dyn FnMut() -> Result<()>) {
    set_up();
    let was_inside = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(was_inside);
    let error = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => {
            let what = PANIC.with(|text| text.try_borrow_mut().map(|mut text| std::mem::take(&mut *text)).unwrap_or_default());
            Error::internal(Errno::EFAULT, format!("bug in virnetdevtap: {what}"))
        }
    };
    // a log function of the caller's may panic as well
    drop(catch_unwind(AssertUnwindSafe(|| host::report(&error, function))));
    error.errno().set();
}

/// Says where to look for libvirt, and keeps the standard library from printing our panics to the process's standard error;
/// they become errors.
///
/// Nobody waits for the one who comes first: a forked child may not have that thread.
fn set_up() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Acquire) {
        return;
    }
    host::set_find_host(super::process::libvirt);
    if DONE.swap(true, Ordering::AcqRel) {
        return;
    }
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !INSIDE.get() {
            return others(info);
        }
        PANIC.with(|text| {
            if let Ok(mut text) = text.try_borrow_mut() {
                *text = info.to_string();
            }
        });
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let rc = fence("virNetDevTapTest", -1, || panic!("on purpose"));
        assert_eq!(rc, -1);
        assert_eq!(Errno::last(), Errno::EFAULT);
        let error = host::last_error().expect("reported");
        assert!(error.to_string().contains("on purpose"), "{error}");
    }
}
