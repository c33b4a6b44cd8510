use super::*;

fn chosen(
    transport: TransportChoice,
    scsi_only: bool,
    bsg: Result<(), String>,
) -> Result<(Transport, String), String> {
    let options = Options { transport, scsi_only, ..Options::default() };
    choose(Path::new("/dev/sdx"), &options, bsg).map_err(|e| e.to_string())
}

fn cannot() -> Result<(), String> {
    Err("the kernel is old".to_owned())
}

#[test]
fn auto_takes_the_fastest_that_keeps_every_promise() {
    use TransportChoice::Auto;
    for scsi_only in [false, true] {
        assert_eq!(chosen(Auto, scsi_only, Ok(())).unwrap().0, Transport::BsgUring);
    }
    let (transport, reason) = chosen(Auto, false, cannot()).unwrap();
    let ring = uring::available().is_ok();
    assert_eq!(transport, if ring { Transport::BlkUring } else { Transport::SgIo });
    assert!(!ring || reason.contains("no bsg-uring: the kernel is old"), "{reason}");
    let (transport, reason) = chosen(Auto, true, cannot()).unwrap();
    assert_eq!((transport, &*reason), (Transport::SgIo, "no bsg-uring: the kernel is old"));
}

#[test]
fn what_is_asked_for_is_taken_or_refused_with_the_reason() {
    use TransportChoice::{BsgUring, SgIo};
    assert_eq!(chosen(SgIo, false, Ok(())).unwrap().0, Transport::SgIo);
    let (transport, reason) = chosen(BsgUring, true, Ok(())).unwrap();
    assert_eq!(transport, Transport::BsgUring);
    assert_eq!(reason, "asked for by --transport bsg-uring");
    let words = chosen(BsgUring, false, cannot()).unwrap_err();
    assert_eq!(words, "/dev/sdx: transport bsg-uring is not possible: the kernel is old");
}
