//! Sizes and offsets of the binary structures, once: the code uses them, and the byte tables of
//! `docs/format.md` are tested against [`TABLES`].

/// One field of a fixed structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the structure's start.
    pub offset: u64,
    /// Bytes that it takes.
    pub size: u64,
    /// Its name.
    pub name: &'static str,
}

/// A fixed structure by its fields, in order and without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The structure's name, a heading in `docs/format.md`.
    pub name: &'static str,
    /// Its fields' names and sizes.
    pub fields: &'static [(&'static str, u64)],
}

impl Table {
    /// The whole size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        let mut sum = 0;
        let mut fields = self.fields;
        while let Some(((_, size), rest)) = fields.split_first() {
            sum += *size;
            fields = rest;
        }
        sum
    }

    /// The fields with their offsets.
    pub fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        self.fields.iter().scan(0, |offset, &(name, size)| {
            let field = Field { offset: *offset, size, name };
            *offset += size;
            Some(field)
        })
    }
}

/// The clear header at the front of every sealed object; the method field and a CRC follow it.
pub const HEADER: Table = Table {
    name: "Object header",
    fields: &[
        ("magic", 8),
        ("format version", 2),
        ("kind", 1),
        ("suite", 1),
        ("key method", 1),
        ("key class", 1),
        ("method field length", 2),
        ("epoch", 4),
        ("id-key generation", 4),
        ("salt", 32),
        ("digest", 32),
    ],
};

/// What stands before the payload inside a sealed frame.
pub const FRAME: Table =
    Table { name: "Frame payload", fields: &[("codec", 1), ("plain length", 4)] };

/// The nonce of a frame.
pub const NONCE: Table = Table {
    name: "Frame nonce",
    fields: &[("frame number", 8), ("section", 1), ("last", 1), ("zero", 2)],
};

/// The clear end of an object that has a trailer.
pub const TAIL: Table = Table {
    name: "Tail",
    fields: &[("trailer frame length", 4), ("body frames", 4), ("crc", 4), ("magic", 4)],
};

/// One chunk in a pack's directory.
pub const DIRECTORY_ENTRY: Table = Table {
    name: "Directory entry",
    fields: &[
        ("chunk id", 32),
        ("frame offset", 4),
        ("sealed length", 4),
        ("plain length", 4),
        ("frame check", 8),
    ],
};

/// One pack in the head of an index object; its method field follows.
pub const INDEX_PACK: Table = Table {
    name: "Index pack",
    fields: &[
        ("pack id", 16),
        ("size", 8),
        ("kind", 1),
        ("suite", 1),
        ("key method", 1),
        ("key class", 1),
        ("method field length", 2),
        ("epoch", 4),
        ("id-key generation", 4),
        ("salt", 32),
    ],
};

/// One block in the fence table of an index object.
pub const INDEX_FENCE: Table = Table {
    name: "Index fence",
    fields: &[("first chunk id", 32), ("entries", 4), ("frame offset", 4), ("frame length", 4)],
};

/// One chunk in a block of an index object.
pub const INDEX_ENTRY: Table = Table {
    name: "Index entry",
    fields: &[
        ("chunk id", 32),
        ("pack", 4),
        ("frame number", 4),
        ("frame offset", 4),
        ("sealed length", 4),
        ("plain length", 4),
        ("frame check", 8),
    ],
};

/// Every fixed structure, in the order of `docs/format.md`.
pub const TABLES: &[Table] =
    &[HEADER, NONCE, FRAME, TAIL, DIRECTORY_ENTRY, INDEX_PACK, INDEX_FENCE, INDEX_ENTRY];
