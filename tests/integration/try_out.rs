//! Temporary.
use crate::harness::blk_queue::{PATIENCE, Payload};
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::in_process::{InProcess, Parts};
use vhost_mpath::sim::{CutMode, Fault};
use vhost_mpath::virtio::blk::RequestType;
use vmm_sys_util::tempdir::TempDir;

#[test]
fn smoke() {
    for (event_idx, indirect) in [(true, true), (false, false), (true, false), (false, true)] {
        let dir = TempDir::new().unwrap();
        let image = dir.as_path().join("disk.img");
        let socket = dir.as_path().join("s");
        let path = format!("sim:{},size=8M", image.display());
        let parts = Parts { paths: vec![path.clone(), path], queues: 2, ..Parts::default() };
        let daemon = InProcess::start(&socket, &parts);
        let mut shape = Shape { queues: 2, slots: true, ..Shape::default() };
        shape.manner.event_idx = event_idx;
        shape.manner.indirect = indirect;
        let mut fe = FrontEnd::connect(&socket, shape);
        for q in 0..2 {
            let queue = fe.queue(q);
            let data: Vec<u8> = (0..8192u32).map(|i| (i % 251) as u8 ^ q as u8).collect();
            let done = queue.run(RequestType::Out, 8, Payload::Bytes(&data), 0);
            assert_eq!((done.status, done.used_len), (0, 1));
            let done = queue.run(RequestType::In, 8, Payload::None, 8192);
            assert_eq!((done.status, done.used_len), (0, 8193));
            assert!(queue.data(&done) == data);
        }
        daemon.inject(0, Fault::Cut(CutMode::Before));
        for i in 0..20 {
            fe.queue(0).submit(RequestType::In, i * 8, Payload::None, 4096).unwrap();
            fe.queue(0).kick();
        }
        let all = fe.queue(0).drain(PATIENCE);
        assert!(all.iter().all(|d| d.status == 0));
        daemon.inject(1, Fault::Cut(CutMode::Before));
        for i in 0..20 {
            fe.queue(0).submit(RequestType::In, i * 8, Payload::None, 4096).unwrap();
        }
        fe.queue(0).kick();
        std::thread::sleep(std::time::Duration::from_millis(100));
        fe.disconnect();
        std::thread::sleep(std::time::Duration::from_millis(50));
        fe.reconnect();
        daemon.inject(0, Fault::Plug);
        let all = fe.queue(0).drain(PATIENCE);
        assert!(all.iter().all(|d| d.status == 0));
        println!("{:?} {:?}", daemon.issued(), daemon.trouble.lock().unwrap());
    }
}
