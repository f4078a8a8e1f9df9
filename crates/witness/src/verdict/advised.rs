//! Gives the advice about a cause only once, however often the cause is met.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::cause::Cause;

/// The causes that a program has given its advice about.
#[derive(Debug, Default)]
pub struct Advised(Mutex<BTreeSet<Cause>>);

impl Advised {
    /// What to do about `cause`, if it is met for the first time and something can be done.
    pub fn first(&self, cause: Cause) -> Option<&'static str> {
        // No code panics while it holds the lock.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (cause != Cause::NoReset && told.insert(cause)).then(|| cause.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_advice_once() {
        let advised = Advised::default();
        assert_eq!(advised.first(Cause::Killed), Some(Cause::Killed.advice()));
        assert!(advised.first(Cause::LateData).is_some());
        assert_eq!(advised.first(Cause::Killed), None);
        assert_eq!(advised.first(Cause::NoReset), None);
    }
}
