//! What does a seccomp program say about a call? The kernel's classic BPF machine, as far as
//! seccomp(2) allows it, for tests. It is also the kernel's checker: a program that could leave its
//! end, or that uses an instruction seccomp refuses, is a panic.

/// `struct seccomp_data`, and the byte order it lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
    pub big_endian: bool,
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        assert!(offset.is_multiple_of(4), "unaligned load from {offset}");
        let (high, low) = match offset {
            0 => return self.nr,
            4 => return self.arch,
            8 | 12 => return 0,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                ((arg >> 32) as u32, arg as u32)
            }
            _ => panic!("load from {offset}"),
        };
        if offset.is_multiple_of(8) == self.big_endian {
            high
        } else {
            low
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub k: u32,
}

/// `struct sock_filter`s of the machine the test runs on.
pub(super) fn decode(program: &[u64]) -> Vec<Instruction> {
    let one = |word: &u64| {
        let [a, b, if_true, if_false, e, f, g, h] = word.to_ne_bytes();
        Instruction {
            code: u16::from_ne_bytes([a, b]),
            if_true,
            if_false,
            k: u32::from_ne_bytes([e, f, g, h]),
        }
    };
    program.iter().map(one).collect()
}

/// The program's return value, and how many instructions that took.
pub(super) fn run(program: &[Instruction], data: &Data) -> (u32, usize) {
    let (mut a, mut x, mut at, mut executed) = (0u32, 0u32, 0usize, 0usize);
    let mut memory = [0u32; 16];
    loop {
        let instruction = program[at];
        let k = instruction.k;
        executed += 1;
        at += 1;
        let mut jump = |holds: bool| {
            at += usize::from(if holds {
                instruction.if_true
            } else {
                instruction.if_false
            });
        };
        match instruction.code {
            0x20 => a = data.word(k),
            0x60 => a = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x07 => x = a,
            0x87 => a = x,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            0x06 => return (k, executed),
            other => panic!("instruction {other:#x} is not seccomp's"),
        }
    }
}
