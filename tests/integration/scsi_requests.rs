//! What a vhost-user-scsi guest is answered, row by row.
use crate::harness::cdb;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{Task, lun};
use crate::harness::sim_daemon::{Daemon, Setup};

#[test]
fn smoke() {
    let daemon = Daemon::start(&Setup::scsi().lun("0:1", "one"));
    let mut guest = ScsiGuest::connect(&daemon, 2);
    println!("{:x} {:?}", guest.features, guest.protocol);
    println!("{:02x?}", guest.config(0, 36));
    for _ in 0..3 {
        println!("{:?}", guest.run(&Task::new(&cdb::TUR)));
    }
    println!("{:02x?}", guest.run(&Task::new(&cdb::inquiry(None, 96)).reading(96)));
    println!("{:02x?}", guest.run(&Task::new(&cdb::report_luns(0, 64)).reading(64)));
    let data = vec![7; 4096];
    println!("{}", guest.run(&Task::new(&cdb::blocks(0x8a, 8, 8)).writing(&data)));
    let read = guest.run(&Task::new(&cdb::blocks(0x28, 8, 8)).reading(4096));
    assert!(read.data == data);
    println!("{}", guest.run(&Task::new(&cdb::TUR).to(lun(0, 1))));
    println!("{}", guest.run(&Task::new(&cdb::TUR).to(lun(0, 2))));
    println!("{}", guest.run(&Task::new(&cdb::TUR).to(lun(1, 2))));
    for t in 0..9 {
        println!("{}", guest.control().run_tmf(t, lun(0, 0), 5));
    }
}
