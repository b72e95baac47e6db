//! A fork in the middle of anything: the child, in which only the forking thread goes on, finds every lock of the library
//! free, and has nothing of the locks on state directories that its parent's threads hold.
//!
//! Whoever forks waits until nobody holds one of these locks. libvirt forks with the lock of its log held, so nothing that is
//! done under one of them may log or report.

use crate::host;
use crate::kernel::sys;
use crate::state::{dirlock, guard};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

type Guard<T> = std::sync::MutexGuard<'static, T>;

struct Held {
    _guards: Guard<guard::Guards>,
    _log_func: Guard<host::LogSlot>,
    directories: Guard<dirlock::Open>,
    #[cfg(feature = "preload")]
    policy: crate::preload::Held,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// To be called before one of the locks is taken.
pub(crate) fn protect() {
    static PROTECTED: AtomicBool = AtomicBool::new(false);
    // should several threads come first, the functions are called several times, which is as good; what is to hold in the
    // middle of a fork cannot wait for another thread itself
    if !PROTECTED.load(Ordering::Acquire) && sys::at_fork(before, in_parent, in_child).is_ok() {
        PROTECTED.store(true, Ordering::Release);
    }
}

/// In a thread that is just ending there is no room to keep the locks: it forks without.
fn held(work: impl FnOnce(&mut Option<Held>)) {
    let _ = HELD.try_with(|held| held.try_borrow_mut().map(|mut held| work(&mut held)));
}

extern "C" fn before() {
    held(|held| {
        held.get_or_insert_with(|| Held {
            _guards: guard::lock(),
            _log_func: host::lock_log_func(),
            directories: dirlock::lock(),
            #[cfg(feature = "preload")]
            policy: crate::preload::hold_still(),
        });
    });
}

extern "C" fn in_parent() {
    held(|held| drop(held.take()));
}

extern "C" fn in_child() {
    sys::start_no_more_threads();
    held(|held| {
        if let Some(mut held) = held.take() {
            dirlock::give_up(&mut held.directories);
            #[cfg(feature = "preload")]
            held.policy.of_a_child();
        }
    });
}
