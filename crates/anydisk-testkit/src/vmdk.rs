//! Sparse VMDK images made by hand, with tables as small as no writer makes them.

/// A sparse image made by hand.
#[derive(Clone, Copy, Debug)]
pub struct ByHand {
    /// Sectors of the disk.
    pub sectors: u64,
    /// Sectors of a grain.
    pub grain: u64,
    /// Entry 1 of a table is a grain of zeroes.
    pub zeroed_grain: bool,
    /// The content ID of the image below.
    pub parent: Option<u32>,
}

impl ByHand {
    /// The file: header, descriptor, two directories with a table each, no grain.
    ///
    /// # Panics
    /// If the directories would not fit a sector each.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        self.bytes_with_tables_of(512)
    }

    /// The same with tables of so many entries.
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    #[must_use]
    pub fn bytes_with_tables_of(self, entries: u32) -> Vec<u8> {
        let tables = self.sectors.div_ceil(u64::from(entries) * self.grain);
        let set = 1 + tables * (u64::from(entries) * 4).div_ceil(512);
        assert!(tables <= 128, "a directory has one sector");
        let overhead = (5 + 2 * set).next_multiple_of(2);
        let (version, flags) = if self.zeroed_grain { (2, 7) } else { (1, 3) };
        let mut file = Vec::new();
        file.extend(b"KDMV");
        file.extend([version, flags].map(u32::to_le_bytes).concat());
        file.extend([self.sectors, self.grain, 1, 4].map(u64::to_le_bytes).concat());
        file.extend(entries.to_le_bytes());
        file.extend([5, 5 + set, overhead].map(u64::to_le_bytes).concat());
        file.extend(b"\0\n \r\n\0\0");
        file.resize(512, 0);
        file.extend(self.descriptor().bytes());
        for directory in [5, 5 + set] {
            file.resize(usize::try_from(directory * 512).expect("small"), 0);
            for table in 0..tables {
                let sector = directory + 1 + table * (set - 1) / tables;
                file.extend(u32::try_from(sector).expect("small").to_le_bytes());
            }
        }
        file.resize(usize::try_from(overhead * 512).expect("small"), 0);
        file
    }

    fn descriptor(self) -> String {
        let hint = match self.parent {
            Some(id) => format!("parentCID={id:08x}\nparentFileNameHint=\"below.vmdk\""),
            None => "parentCID=ffffffff".to_owned(),
        };
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=0badcafe\n{hint}\n\
             createType=\"monolithicSparse\"\nRW {} SPARSE \"x.vmdk\"\n\
             ddb.longContentID = \"00112233445566778899aabb0badcafe\"\n",
            self.sectors
        )
    }
}
