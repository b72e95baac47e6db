//! One at a time for each tap: a call of libvirt's, or the watcher. Nobody waits for a tap that is not his.

use crate::kernel::IfName;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(super) type Claimed = BTreeSet<IfName>;

static CLAIMED: Mutex<Claimed> = Mutex::new(BTreeSet::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to deal with a tap, given back when dropped.
#[derive(Debug)]
pub(super) struct Claim(IfName);

pub(super) fn claimed() -> MutexGuard<'static, Claimed> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody else deals with this tap.
pub(super) fn wait_for(name: &IfName) -> Claim {
    let others = claimed();
    let mut ours = GIVEN_BACK.wait_while(others, |claimed| claimed.contains(name)).unwrap_or_else(PoisonError::into_inner);
    ours.insert(*name);
    Claim(*name)
}

/// None: somebody deals with it just now.
pub(super) fn try_now(name: &IfName) -> Option<Claim> {
    // not then_some(): a Claim that is made in vain would give the other's back
    claimed().insert(*name).then(|| Claim(*name))
}

impl Drop for Claim {
    fn drop(&mut self) {
        claimed().remove(&self.0);
        GIVEN_BACK.notify_all();
    }
}
