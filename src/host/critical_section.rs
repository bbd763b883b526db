#![doc = include_str!("../../features/critical-section.md")]

use core::{cell::RefCell, fmt, ops::Range};

use ::critical_section::Mutex;

use crate::{WriteProtect, WriteProtectMut};

/// Why the editor behind a [`critical_section::Mutex`] did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SectionError<E> {
    /// Someone holds a borrow of the editor: a call from inside an edit, or a critical section that
    /// borrowed it and then caused a fault.
    Borrowed,
    /// What the editor said.
    Host(E),
}

impl<E: fmt::Display> fmt::Display for SectionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Borrowed => f.write_str("the page-table editor is borrowed already"),
            Self::Host(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for SectionError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // Its text is already ours, so the chain goes on below it.
            Self::Host(error) => error.source(),
            Self::Borrowed => None,
        }
    }
}

impl<P: WriteProtectMut> WriteProtect for Mutex<RefCell<P>> {
    type Error = SectionError<P::Error>;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        edit(self, |editor| editor.protect(range))
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        edit(self, |editor| editor.protect_all(ranges))
    }

    fn bridge(&self) -> usize {
        let mut bridge = 0;
        // Where the editor is borrowed, its `protect` is an error as well.
        let _ = edit(self, |editor| {
            bridge = editor.bridge();
            Ok::<(), P::Error>(())
        });
        bridge
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        edit(self, |editor| editor.unprotect(range))
    }
}

fn edit<P, E>(
    editor: &Mutex<RefCell<P>>,
    change: impl FnOnce(&mut P) -> Result<(), E>,
) -> Result<(), SectionError<E>> {
    ::critical_section::with(|section| {
        // A critical section keeps other threads and cores out, but not a call from inside itself.
        let mut editor = editor
            .borrow(section)
            .try_borrow_mut()
            .map_err(|_| SectionError::Borrowed)?;
        change(&mut editor).map_err(SectionError::Host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Editor(u32);

    impl WriteProtectMut for Editor {
        type Error = core::convert::Infallible;

        fn protect(&mut self, _: Range<u64>) -> Result<(), Self::Error> {
            self.0 += 1;
            Ok(())
        }

        fn unprotect(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
            self.protect(range)
        }
    }

    #[test]
    fn a_borrow_inside_a_section_is_an_error_value() {
        let editor = Mutex::new(RefCell::new(Editor(0)));
        ::critical_section::with(|section| {
            let held = editor.borrow(section).borrow();
            assert_eq!(editor.protect(0..4096), Err(SectionError::Borrowed));
            assert_eq!(editor.unprotect(0..4096), Err(SectionError::Borrowed));
            assert_eq!(held.0, 0);
        });
        assert_eq!(editor.protect(0..4096), Ok(()));
        assert_eq!(editor.unprotect(0..4096), Ok(()));
    }
}
