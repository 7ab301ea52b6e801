//! How much of an image is believed before it is refused.
//!
//! Everything from a registry or an archive is hostile until checked; these are the bounds of that
//! checking. A plain value: the command line fills it from its configuration.

/// Upper bounds. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One layer after decompression, the archive's own headers included.
    pub expanded: u64,
    /// The compressed layers of an image together.
    pub image: u64,
    /// An image archive that has to be decompressed, or copied from a pipe, before it can be read.
    pub archive: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Components of a path within a layer.
    pub depth: usize,
    /// All extension headers in front of one entry: PAX records, GNU long names, sparse maps.
    pub pax: usize,
    /// What must be in memory of one layer until it is complete: paths and attributes of
    /// directories, the targets of hard links, and the window of a zstd frame.
    pub memory: usize,
    /// The window a zstd frame may ask for, as a power of two.
    pub zstd_window_log: u32,
    /// A manifest or an index.
    pub manifest: usize,
    /// An image configuration.
    pub config: usize,
    /// Layers of an image. Overlay takes 500 lower directories, one of which may be ours.
    pub layers: usize,
    /// How deep an index may lie within an index.
    pub index_depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            expanded: 32 << 30,
            image: 64 << 30,
            archive: 64 << 30,
            entries: 2_000_000,
            depth: 256,
            pax: 1 << 20,
            memory: 40 << 20,
            zstd_window_log: 25,
            manifest: 4 << 20,
            config: 8 << 20,
            layers: 499,
            index_depth: 3,
        }
    }
}
