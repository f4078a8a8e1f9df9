//! The order to stop, in two steps.

use tokio_util::sync::CancellationToken;

/// The order to stop. A token alone is an order whose second step comes after [`GRACE`](crate::accept::GRACE). Clones
/// share both steps.
#[derive(Debug, Clone, Default)]
pub struct StopOrder {
    /// Finish what runs, and begin nothing.
    pub finish: CancellationToken,
    /// Give up what still runs.
    pub abandon: CancellationToken,
}

impl StopOrder {
    /// An order that this one gives too, but whose own steps this one does not feel.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            finish: self.finish.child_token(),
            abandon: self.abandon.child_token(),
        }
    }
}

impl From<CancellationToken> for StopOrder {
    fn from(finish: CancellationToken) -> Self {
        Self {
            finish,
            abandon: CancellationToken::new(),
        }
    }
}
