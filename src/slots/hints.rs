use crate::sync::HintByte;

/// What is left for the reader about a line.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Hints {
    /// A slot has another version: set by its writer, and by the owner who frees it.
    pub(super) written: HintByte,
    /// A slot has another generation: set by the owner.
    pub(super) reused: HintByte,
}

impl Hints {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            written: HintByte::new(),
            reused: HintByte::new(),
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self::default()
    }
}
