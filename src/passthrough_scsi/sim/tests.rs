//! The array in real time, on an image: what `crate::sim` cannot show alone.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::scsi::alua::AccessState;
use crate::scsi::status::HostByte;
use crate::sim::NewCapacity;

const TIMEOUT: Duration = Duration::from_secs(5);

fn image() -> (Arc<SimImage>, Arc<File>) {
    let name = format!("vhost-mpath-sim-{}-{:?}", std::process::id(), thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let config = LuConfig { blocks: 2048, ..LuConfig::default() };
    file.set_len(2048 * 512).unwrap();
    let file = Arc::new(file);
    let medium = FileMedium::new(Arc::clone(&file));
    (Arc::new(SimImage::start(config, Box::new(medium)).unwrap()), file)
}

fn sense(completion: Completion) -> String {
    match completion {
        Completion::Scsi { sense, .. } => {
            sense.code().map_or_else(String::new, |code| code.to_string())
        }
        _ => String::new(),
    }
}

fn tur(path: &SimNexus) -> String {
    sense(path.execute(&Cdb::test_unit_ready(), Buffer::NONE, TIMEOUT))
}

#[test]
fn a_new_capacity_is_the_images_too() {
    let (image, file) = image();
    let path = image.add_path("a").unwrap();
    path.inject(Fault::Capacity(NewCapacity::Grow)).unwrap();
    assert_eq!(file.metadata().unwrap().size(), 4096 * 512);
    assert_eq!(tur(&path), "06/2a/09");
    let mut data = [0; 8];
    path.execute(&Cdb::read_capacity_10(), Buffer::In(&mut data), TIMEOUT);
    assert_eq!(data[..4], 4095u32.to_be_bytes());
    let refused = path.inject(Fault::Capacity(NewCapacity::Bytes(1000))).unwrap_err();
    assert!(refused.to_string().contains("1000 bytes are no capacity"), "{refused}");
    assert_eq!(file.metadata().unwrap().size(), 4096 * 512);
}

#[test]
fn holes_of_the_image_are_unmapped_blocks() {
    let (image, file) = image();
    let path = image.add_path("a").unwrap();
    file.write_all_at(&[1; 65536], 65536).unwrap();
    let mut medium = FileMedium::new(file);
    if medium.mapped(0, 512).unwrap().0 {
        return; // the file system does not know holes
    }
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x12, 56);
    let mut data = [0; 56];
    let cdb = Cdb::from_bytes(&cdb).unwrap();
    assert_eq!(path.execute(&cdb, Buffer::In(&mut data), TIMEOUT), Completion::Good);
    let run = |at: usize| {
        let blocks = u32::from_be_bytes(data[at + 8..at + 12].try_into().unwrap());
        (data[at + 7], blocks, data[at + 12])
    };
    assert_eq!([run(8), run(24)], [(0, 128, 1), (128, 128, 0)]);
    assert_eq!((run(40).1, run(40).2), (2048 - 256, 1));
}

#[test]
fn paths_are_plugged_in_where_they_say() {
    let (image, _) = image();
    let at = |port, group| Plugged { port: Some(port), group: Some(group), ..Plugged::default() };
    let a = image.add_path_at("a", at(7, 1)).unwrap();
    let b = image.add_path_at("b", at(8, 2)).unwrap();
    let refused = image.add_path_at("c", at(8, 3)).unwrap_err();
    assert!(refused.to_string().contains("port 8 is in target port group 2"), "{refused}");
    let transition = Duration::from_millis(30);
    b.inject(Fault::Alua { state: AccessState::Standby, transition }).unwrap();
    assert_eq!((tur(&a), tur(&b)), (String::new(), "02/04/0a".to_owned()));
    assert_eq!(b.describe().0, "transitioning");
    thread::sleep(2 * transition);
    assert_eq!((tur(&a), tur(&b)), ("06/2a/06".to_owned(), "06/2a/06".to_owned()));
    assert_eq!((tur(&a), tur(&b)), (String::new(), "02/04/0b".to_owned()));
    assert_eq!((a.describe().0, b.describe().0), ("none".to_owned(), "standby".to_owned()));
}

#[test]
fn a_reset_returns_what_hangs_on_every_path() {
    let (image, _) = image();
    let (a, b) = (image.add_path("a").unwrap(), image.add_path("b").unwrap());
    b.inject(Fault::Hang).unwrap();
    thread::scope(|scope| {
        let hung = scope.spawn(|| b.execute(&Cdb::test_unit_ready(), Buffer::NONE, TIMEOUT));
        while b.describe().1.unwrap().submitted == 0 {
            thread::yield_now();
        }
        a.reset_lu();
        let completion = hung.join().unwrap();
        assert!(matches!(completion, Completion::Scsi { host: HostByte::RESET, .. }));
    });
    assert_eq!(tur(&a), "06/29/03");
}
