//! Memory to read files into, which begins where a page of memory does.
//!
//! The instruction that Linux copies file pages with takes three times as long on AMD's Zen 3 and 4
//! when the target begins a few bytes further into its page than the source (bug 30994 of the GNU C
//! library tells of it), and large pieces of allocated memory begin 16 bytes into a page.

/// Bytes of a page of memory, for this purpose.
const ALIGNMENT: usize = 4096;

/// A reusable buffer.
#[derive(Debug, Default)]
pub(crate) struct PageBuffer {
    memory: Vec<u8>,
}

impl PageBuffer {
    /// The first `len` bytes, whatever is in them.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
        if self.memory.len() < len + ALIGNMENT {
            self.memory = vec![0; len + ALIGNMENT];
        }
        let skip = self.memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        self.memory.get_mut(skip..skip + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_all_there_and_begin_a_page() {
        let mut buffer = PageBuffer::default();
        for len in [0, 1, 1 << 20, 8192, (1 << 20) + 1, 200_000] {
            let bytes = buffer.bytes(len);
            assert_eq!(bytes.len(), len);
            assert!((bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT));
        }
    }
}
