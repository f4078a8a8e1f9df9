//! Settings that may change while a program runs.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The settings as they are now. Each request reads them once. Clones share them.
///
/// Reading takes no lock, and a request keeps the settings that it has read.
#[derive(Debug)]
pub struct Live<C>(Arc<ArcSwap<C>>);

impl<C> Live<C> {
    /// The settings to begin with.
    pub fn new(settings: C) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(settings)))
    }

    /// The settings as they are now.
    pub fn now(&self) -> Arc<C> {
        self.0.load_full()
    }

    /// Replaces the settings, for every request that begins from now on.
    pub fn set(&self, settings: C) {
        self.0.store(Arc::new(settings));
    }
}

impl<C> Clone for Live<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> From<C> for Live<C> {
    fn from(settings: C) -> Self {
        Self::new(settings)
    }
}
