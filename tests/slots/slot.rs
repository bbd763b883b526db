//! One value.

use pugmark::Slot;
use pugmark::slots::{Read, UNSEEN};

/// 11 bytes, aligned to one: words and a tail.
type Odd = [u8; 11];

#[test]
fn holds_what_it_was_made_with_and_what_was_written() {
    static SLOT: Slot<Odd> = Slot::new(*b"from const!");
    assert_eq!(SLOT.read().as_ref(), Some(b"from const!"));
    let mut writer = SLOT.writer().unwrap();
    writer.write(b"first write");
    let mut into = Odd::default();
    assert!(SLOT.read_into(&mut into));
    assert_eq!(&into, b"first write");
    let mut fast = Odd::default();
    assert!(SLOT.read_into_fast(&mut fast));
    assert_eq!(fast, into);
}

#[test]
fn has_one_writer() {
    let slot = Slot::new(1_u64);
    let writer = slot.writer().unwrap();
    assert!(slot.writer().is_none());
    drop(writer);
    slot.writer().unwrap().write(&2);
    assert_eq!(slot.read(), Some(2));
}

#[test]
fn says_whether_it_changed() {
    let slot = Slot::new([0_u16; 3]);
    let (mut seen, mut into) = (UNSEEN, [9; 3]);
    assert_eq!(
        slot.read_if_changed(&mut seen, &mut into),
        Read::Updated { version: 0 }
    );
    assert_eq!((seen, into), (0, [0; 3]));
    into = [9; 3];
    assert_eq!(slot.read_if_changed(&mut seen, &mut into), Read::Unchanged);
    assert_eq!(into, [9; 3], "nothing was copied");
    // SAFETY: this is the only writer.
    unsafe { slot.write(&[1, 2, 3]) };
    assert_eq!(
        slot.read_if_changed(&mut seen, &mut into),
        Read::Updated { version: 2 }
    );
    assert_eq!(into, [1, 2, 3]);
}

#[test]
fn any_size() {
    fn check<const N: usize>() {
        let slot = Slot::new([1_u8; N]);
        let value = core::array::from_fn(|i| i as u8);
        slot.writer().unwrap().write(&value);
        assert_eq!(slot.read(), Some(value));
    }
    check::<0>();
    check::<1>();
    check::<7>();
    check::<8>();
    check::<9>();
    check::<64>();
    check::<100>();
}

/// A value that is aligned to more than a word stays so.
#[test]
fn a_large_alignment() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    #[repr(C, align(32))]
    struct Wide([u64; 4]);
    // SAFETY: an array of integers as large as its alignment: no padding, no invalid value.
    unsafe impl bytemuck::Zeroable for Wide {}
    // SAFETY: the same.
    unsafe impl bytemuck::Pod for Wide {}

    let slots = [Slot::new(Wide([1; 4])), Slot::new(Wide([2; 4]))];
    slots[0].writer().unwrap().write(&Wide([3; 4]));
    assert_eq!(
        slots.each_ref().map(Slot::read),
        [Some(Wide([3; 4])), Some(Wide([2; 4]))]
    );
}
