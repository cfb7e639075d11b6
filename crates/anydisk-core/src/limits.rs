//! How much memory and work one image may cost.

/// Limits per image and per call. Caches evict when they are full; they never make a read fail.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Memory for cached tables of one image, in bytes.
    pub table_cache: usize,
    /// Memory for decoded units of one disk (all layers), in bytes.
    pub decoded_cache: usize,
    /// Largest text or list inside an image that is read as a whole (descriptor, header
    /// extensions), in bytes.
    pub descriptor: usize,
    /// Images in a chain, the top one included.
    pub chain: usize,
    /// Files that one image may be made of.
    pub extents: usize,
    /// Largest unit that is decoded in one piece, in bytes.
    pub unit: u64,
    /// Iterations of a hash that one passphrase may cost (PBKDF2).
    pub kdf_iterations: u64,
    /// Memory that one passphrase may cost (argon2), in bytes.
    pub kdf_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            table_cache: 32 << 20,
            decoded_cache: 16 << 20,
            descriptor: 1 << 20,
            chain: 256,
            extents: 4096,
            unit: 64 << 20,
            kdf_iterations: 40_000_000,
            kdf_memory: 4 << 30,
        }
    }
}

impl Limits {
    /// For bytes from strangers: what a small machine can spare for one of many images.
    #[must_use]
    pub fn strict() -> Self {
        Self {
            table_cache: 4 << 20,
            decoded_cache: 4 << 20,
            descriptor: 64 << 10,
            chain: 16,
            extents: 64,
            unit: 4 << 20,
            kdf_iterations: 10_000_000,
            kdf_memory: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/security.md");

    /// A size as the page writes it.
    fn size(bytes: u64) -> String {
        match bytes {
            gib if gib.is_multiple_of(1 << 30) => format!("{} GiB", gib >> 30),
            mib if mib.is_multiple_of(1 << 20) => format!("{} MiB", mib >> 20),
            kib => format!("{} KiB", kib >> 10),
        }
    }

    /// The columns of the page's table that hold `limits`, from the top.
    fn column(limits: &Limits) -> [String; 8] {
        let Limits { table_cache, decoded_cache, descriptor, chain, extents, unit, .. } = *limits;
        let sizes = [table_cache, decoded_cache, descriptor].map(|bytes| size(bytes as u64));
        let [tables, decoded, text] = sizes;
        let (images, files) = (chain.to_string(), extents.to_string());
        let (work, memory) = (limits.kdf_iterations.to_string(), size(limits.kdf_memory));
        [tables, decoded, text, images, files, size(unit), work, memory]
    }

    #[test]
    fn the_security_page_tells_the_limits_that_hold() {
        let ours = column(&Limits::default()).into_iter().zip(column(&Limits::strict()));
        let heading = "| what | `Limits::default()` | `Limits::strict()` |";
        let table = PAGE.split_once(heading).expect("the table").1.lines().skip(2);
        let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 8);
        for (row, (default, strict)) in rows.iter().zip(ours) {
            assert!(row.ends_with(&format!(" | {default} | {strict} |")), "{row}");
        }
    }
}
