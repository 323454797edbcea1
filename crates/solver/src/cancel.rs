//! Stopping a build.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A switch that stops everything that belongs to a build. Clones are the same switch.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Switch>);

#[derive(Default)]
struct Switch {
    thrown: AtomicBool,
    hooks: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Cancel {
    /// Asks everybody to stop; cannot be taken back.
    pub fn cancel(&self) {
        let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.thrown.store(true, Ordering::Relaxed);
        let hooks = std::mem::take(&mut *hooks);
        hooks.into_iter().for_each(|hook| hook());
    }

    /// Whether somebody has asked.
    pub fn is_canceled(&self) -> bool {
        self.0.thrown.load(Ordering::Relaxed)
    }

    /// Calls a function when somebody asks, or at once if somebody has. For those who wait for
    /// something else and have to be woken up.
    pub fn when_canceled(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_canceled() {
            drop(hooks);
            hook();
        } else {
            hooks.push(Box::new(hook));
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_canceled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Cancel;

    #[test]
    fn hooks_run_once_whenever_they_come() {
        let count = Arc::new(AtomicUsize::new(0));
        let hook = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let cancel = Cancel::default();
        cancel.when_canceled(hook(&count));
        assert_eq!(count.load(Ordering::SeqCst), 0);
        cancel.clone().cancel();
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        cancel.when_canceled(hook(&count));
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert!(cancel.is_canceled());
    }
}
