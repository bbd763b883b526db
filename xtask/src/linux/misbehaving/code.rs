//! The few A64 instructions that the guests are made of, encoded as the Arm Architecture Reference
//! Manual says, and the header that makes an arm64 Image of them.

use super::super::layout;

/// Bytes of the header. The first instruction after it is the first that the guest runs.
const HEADER: u64 = 64;
/// The byte of the header where the magic number begins.
pub const MAGIC: usize = 56;
/// Where a second vCPU finds an endless loop: an instruction in the header.
pub const IDLE: u64 = layout::KERNEL + 4;

/// PSCI's SYSTEM_OFF.
const SYSTEM_OFF: u64 = 0x8400_0008;

/// Gathers the answers to calls: a doorbell's word.
const ANSWERS: u32 = 19;
/// For whatever is needed next.
const SCRATCH: u32 = 9;

/// A program, instruction by instruction.
#[derive(Clone)]
pub struct Code(Vec<u32>);

impl Code {
    pub fn new() -> Self {
        // No answers yet: a name of spaces.
        Self(Vec::new()).set(ANSWERS, u64::from_le_bytes(*b"        "))
    }

    fn put(mut self, instruction: u32) -> Self {
        self.0.push(instruction);
        self
    }

    /// Puts a number into a register.
    pub fn set(self, register: u32, value: u64) -> Self {
        (0..4).fold(self, |code, part| {
            let bits = (value >> (16 * part)) as u32 & 0xffff;
            let instruction = match part {
                0 => 0xd280_0000, // movz Xregister, #bits
                _ => 0xf280_0000, // movk Xregister, #bits, lsl #(16 * part)
            };
            code.put(instruction | part << 21 | bits << 5 | register)
        })
    }

    /// The hypervisor's services by HVC: the function in x0, what it is given in x1 and on.
    pub fn hvc(self, function: u64, arguments: &[u64]) -> Self {
        self.arguments(function, arguments).put(0xd400_0002) // hvc #0
    }

    /// The same by SMC.
    pub fn smc(self, function: u64, arguments: &[u64]) -> Self {
        self.arguments(function, arguments).put(0xd400_0003) // smc #0
    }

    fn arguments(self, function: u64, arguments: &[u64]) -> Self {
        let code = self.set(0, function);
        (1..)
            .zip(arguments)
            .fold(code, |code, (register, value)| code.set(register, *value))
    }

    /// Notes the answer in x0, 0 to -9, as a digit without sign: letter number `place` of the word.
    pub fn note(self, place: u32) -> Self {
        let rotation = (64 - 8 * place) % 64;
        self.put(0x5280_0609) // mov w9, #'0'
            .put(0x4b00_0129) // sub w9, w9, w0
            .put(0xb340_1d33 | rotation << 16) // bfi x19, x9, #(8 * place), #8
    }

    /// Rings the doorbell with the answers.
    pub fn ring(self) -> Self {
        self.set(SCRATCH, layout::DOORBELL).put(0xf900_0133) // str x19, [x9]
    }

    pub fn off(self) -> Self {
        self.hvc(SYSTEM_OFF, &[]).wait()
    }

    /// Asks again and again until the answer is 0.
    pub fn hvc_until_zero(self, function: u64, arguments: &[u64]) -> Self {
        let start = self.0.len();
        let code = self.hvc(function, arguments);
        let back = (start.wrapping_sub(code.0.len()) as u32) & 0x7_ffff;
        code.put(0x3500_0000 | back << 5) // cbnz w0, start
    }

    /// Does nothing, for ever.
    pub fn wait(self) -> Self {
        self.put(0x1400_0000) // b .
    }

    pub fn load(self, address: u64) -> Self {
        self.set(SCRATCH, address).put(0xf940_0120) // ldr x0, [x9]
    }

    pub fn store(self, address: u64) -> Self {
        self.set(SCRATCH, address).put(0xf900_0120) // str x0, [x9]
    }

    pub fn store_byte(self, address: u64) -> Self {
        self.set(SCRATCH, address).put(0x3900_0133) // strb w19, [x9]
    }

    pub fn store_pair(self, address: u64) -> Self {
        self.set(SCRATCH, address).put(0xa900_4d33) // stp x19, x19, [x9]
    }

    /// Writes a register that EL2 keeps to itself unless HCR_EL2.EnSCXT is set.
    pub fn write_scxtnum(self) -> Self {
        self.put(0xd518_d0e0) // msr scxtnum_el1, x0
    }

    /// Where its last instruction is when it runs.
    pub fn last(&self) -> u64 {
        layout::KERNEL + HEADER + 4 * (self.0.len() as u64 - 1)
    }

    /// The file.
    pub fn image(&self) -> Vec<u8> {
        let mut header = [0u32; HEADER as usize / 4];
        header[0] = 0x1400_0010; // b .+64
        header[1] = 0x1400_0000; // b .
        header[4] = 0x1_0000; // the bytes that it takes in memory
        header[MAGIC / 4] = u32::from_le_bytes(*b"ARM\x64");
        let words = header.iter().chain(&self.0);
        words.flat_map(|word| word.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llvm-mc encodes them.
    #[test]
    fn operands_are_where_they_belong() {
        let of = |code: Code| code.0[4..].to_vec();
        assert_eq!(
            of(Code::new().set(1, 0xfedc_0000_8000_0001)),
            [0xd280_0021, 0xf2b0_0001, 0xf2c0_0001, 0xf2ff_db81],
        );
        assert_eq!(of(Code::new().note(0))[2], 0xb340_1d33);
        assert_eq!(of(Code::new().note(1))[2], 0xb378_1d33);
        assert_eq!(of(Code::new().note(4))[2], 0xb360_1d33);
        // Nine instructions back: two numbers and the call.
        let loop_ = of(Code::new().hvc_until_zero(1, &[2]));
        assert_eq!(loop_.last(), Some(&0x35ff_fee0));
        assert_eq!(loop_.len(), 10);
    }

    #[test]
    fn an_image_is_entered_after_its_header() {
        let code = Code::new().wait();
        let image = code.image();
        assert!(super::super::super::image::header(&image).is_ok());
        let last = (code.last() - layout::KERNEL) as usize;
        assert_eq!(image[last..], 0x1400_0000u32.to_le_bytes());
        assert_eq!(last, 64 + 4 * 4);
    }
}
