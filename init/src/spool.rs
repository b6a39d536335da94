//! The spool: the file that a job's output is written to, record after record, and read from.
//!
//! One record is a header of 40 bytes, little endian, and a body:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | [`MAGIC`] |
//! | 4..8 | length of the body |
//! | 8 | [`Kind`] |
//! | 9 | flags: bit 0, the body is no valid UTF-8 |
//! | 10..16 | zero |
//! | 16..24 | frame number: 1, 2, 3, ... per job; 0 for a record that is no frame |
//! | 24..32 | time, nanoseconds since the epoch |
//! | 32..40 | bytes of this stream before this record |
//!
//! Records are only appended, each with one `write`. A reader that finds less than a whole record at
//! the end of the file waits for the rest.

/// `QCR1`.
pub const MAGIC: [u8; 4] = *b"QCR1";
/// Bytes of a header.
pub const HEADER: usize = 40;
/// Largest body of a frame, in bytes: what one WebSocket message carries at most.
pub const MAX_BODY: usize = 48 << 10;
/// Largest body of any record: a report.
pub const MAX_RECORD: usize = 1 << 20;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A frame of the job's standard output.
    Stdout = 1,
    /// A frame of the job's standard error.
    Stderr = 2,
    /// A frame of the agent's own words.
    System = 3,
    /// No frame: the supervisor has the job and is about to start it. Body empty.
    Started = 4,
    /// No frame: the end. Body: [`crate::proto::Report`] as JSON.
    Report = 5,
    /// No frame: a piece of a file that is kept. The report says which records are whose; `offset` counts
    /// the bytes of that file before this piece.
    Artifact = 6,
}

impl Kind {
    /// The kind of that number, if there is one.
    pub fn from_u8(n: u8) -> Option<Kind> {
        Some(match n {
            1 => Kind::Stdout,
            2 => Kind::Stderr,
            3 => Kind::System,
            4 => Kind::Started,
            5 => Kind::Report,
            6 => Kind::Artifact,
            _ => return None,
        })
    }

    /// Whether a reader of the stream sees this record.
    pub fn is_frame(self) -> bool {
        match self {
            Kind::Stdout | Kind::Stderr | Kind::System => true,
            Kind::Started | Kind::Report | Kind::Artifact => false,
        }
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub len: u32,
    pub kind: Kind,
    /// Whether the body is no valid UTF-8 (such a frame travels as base64).
    pub binary: bool,
    pub seq: u64,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Bytes of this stream before this record.
    pub offset: u64,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8] = self.kind as u8;
        out[9] = u8::from(self.binary);
        out[16..24].copy_from_slice(&self.seq.to_le_bytes());
        out[24..32].copy_from_slice(&self.time_ns.to_le_bytes());
        out[32..40].copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    /// Reads a header; `None` if these bytes are not one.
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[0..4] != MAGIC || bytes[9] > 1 || bytes[10..16] != [0; 6] {
            return None;
        }
        let len = u32_at(4);
        if len as usize > MAX_RECORD {
            return None;
        }
        Some(Header {
            len,
            kind: Kind::from_u8(bytes[8])?,
            binary: bytes[9] == 1,
            seq: u64_at(16),
            time_ns: u64_at(24),
            offset: u64_at(32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        let header = Header {
            len: 1234,
            kind: Kind::Stderr,
            binary: true,
            seq: 7,
            time_ns: 1_700_000_000_000_000_001,
            offset: u64::MAX - 1,
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
    }

    #[test]
    fn what_is_no_header_is_none() {
        assert_eq!(Header::decode(&[0; HEADER]), None);
        let good = Header { len: 1, kind: Kind::Stdout, binary: false, seq: 1, time_ns: 1, offset: 0 };
        for (at, byte) in [(0, b'X'), (8, 9), (9, 2), (12, 1)] {
            let mut bytes = good.encode();
            bytes[at] = byte;
            assert_eq!(Header::decode(&bytes), None, "byte {at}");
        }
    }
}
