//! What people call the states of a bundle: any text as its `Snapshots.xml`.
#![no_main]

use std::sync::Arc;

use anydisk_core::{
    Access, Format, Limits, Located, Location, OpenRequest, Reference, Resolver, Result,
};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

/// One sector of a disk in two states, each in a plain file.
const BUNDLE: &str = "<Parallels_disk_image><Disk_Parameters><Disk_size>1</Disk_size></Disk_Parameters>\
     <StorageData><Storage><Start>0</Start><End>1</End>\
     <Image><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Plain</Type><File>a</File></Image>\
     <Image><GUID>{11111111-2222-3333-4444-555555555555}</GUID><Type>Plain</Type><File>b</File></Image>\
     </Storage></StorageData><Snapshots>\
     <Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>\
     <ParentGUID>{11111111-2222-3333-4444-555555555555}</ParentGUID></Shot>\
     <Shot><GUID>{11111111-2222-3333-4444-555555555555}</GUID>\
     <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>\
     </Snapshots></Parallels_disk_image>";

/// The text, and files of a sector.
#[derive(Debug)]
struct Files<'a>(&'a [u8]);

impl Resolver for Files<'_> {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        let bytes = if reference.name.len() == 1 { vec![0; 512] } else { self.0.to_vec() };
        let location = Location::Other(reference.display_name());
        Ok(Located { store: Arc::new(MemoryStorage::new(bytes)), location })
    }
}

fuzz_target!(|data: &[u8]| {
    let store = Arc::new(MemoryStorage::new(BUNDLE.as_bytes().to_vec()));
    let (location, limits) = (Location::Other("DiskDescriptor.xml".into()), Limits::strict());
    let files = Files(data);
    let request = OpenRequest { resolver: &files, ..OpenRequest::new(store, &location, &limits) };
    let bundle = PARALLELS.open(request).expect("it is good whatever it is called");
    let states = bundle.image.snapshots().expect("it has one").list().expect("it is known");
    assert_eq!(states.len(), 1);
});
