//! The request handler of the `vhost` crate, one method per message.
//!
//! Each method only unpacks its message and remembers why it was refused, for
//! the listener to report; what a message does is in `session`.

use std::fs::File;
use std::io;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures as Protocol,
    VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost_user_backend::VhostUserBackend;

use super::{Session, SessionError};
use crate::guest::inflight::{self, InflightArea};
use crate::guest::ring::MAX_RING_SIZE;
use crate::vhost_user::Extras;
use crate::vhost_user::memory::{self, MAX_SLOTS};
use crate::vhost_user::vring::{Addresses, call, event};

impl<B: VhostUserBackend<Bitmap = ()> + Extras> Session<B> {
    /// Keeps the reason of a refusal; the crate only wants to know that.
    fn answer<T>(&mut self, result: std::result::Result<T, SessionError>) -> Result<T> {
        result.map_err(|error| {
            self.refusal = Some(error);
            Error::ReqHandlerError(io::Error::other("refused"))
        })
    }

    fn unsupported<T>(&mut self, what: &'static str) -> Result<T> {
        self.answer(Err(SessionError::Unsupported(what)))
    }

    fn check_area(&self, area: &VhostUserInflight) -> std::result::Result<(), SessionError> {
        if !self.device.inflight() {
            return Err(SessionError::Unsupported("in-flight tracking"));
        }
        if usize::from(area.num_queues) > self.vrings.len() {
            return Err(SessionError::NoSuchRing(u32::from(area.num_queues) - 1));
        }
        let max = self.device.max_queue_size();
        if usize::from(area.queue_size) > max {
            return Err(SessionError::RingSize { size: u32::from(area.queue_size), max });
        }
        Ok(())
    }

    fn make_area(
        &self,
        area: &VhostUserInflight,
    ) -> std::result::Result<(VhostUserInflight, File), SessionError> {
        self.check_area(area)?;
        // For the longest ring, not the size asked for: QEMU asks with its queue-size and then lets the guest
        // choose a longer ring (`inflight::ring_size_of`).
        let longest = u16::try_from(self.device.max_queue_size()).unwrap_or(MAX_RING_SIZE);
        let (queues, size) = (area.num_queues, longest.max(area.queue_size));
        let file = inflight::create(queues, size)?;
        self.device.area_made();
        Ok((VhostUserInflight::new(inflight::area_size(queues, size), 0, queues, size), file))
    }

    fn use_area(
        &mut self,
        area: &VhostUserInflight,
        file: File,
    ) -> std::result::Result<(), SessionError> {
        self.check_area(area)?;
        self.all_at_rest()?;
        let &VhostUserInflight { mmap_size, mmap_offset, num_queues, queue_size } = area;
        let area = InflightArea::attach(file, mmap_size, mmap_offset, num_queues, queue_size)?;
        self.device.area_given(&area);
        self.inflight = Some(area);
        Ok(())
    }

    fn replace_memory(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
    ) -> std::result::Result<(), SessionError> {
        self.refuse_private(&files)?;
        let memory =
            memory::replaced(regions, files).map_err(|error| SessionError::Memory { error })?;
        self.use_memory(memory)
    }

    fn add_slot(
        &mut self,
        region: &VhostUserMemoryRegion,
        file: File,
    ) -> std::result::Result<(), SessionError> {
        if self.memory.num_regions() >= MAX_SLOTS {
            return Err(SessionError::Slots(MAX_SLOTS));
        }
        self.refuse_private(std::slice::from_ref(&file))?;
        let memory = memory::added(&self.memory, region, file)
            .map_err(|error| SessionError::Memory { error })?;
        self.use_memory(memory)
    }

    fn refuse_private(&self, files: &[File]) -> std::result::Result<(), SessionError> {
        match files.iter().find_map(|file| self.peer.maps_privately(file)) {
            Some(pid) => Err(SessionError::PrivateMemory { pid }),
            None => Ok(()),
        }
    }

    fn remove_slot(
        &mut self,
        region: &VhostUserMemoryRegion,
    ) -> std::result::Result<(), SessionError> {
        let memory = memory::removed(&self.memory, region)
            .map_err(|error| SessionError::Memory { error })?;
        self.use_memory(memory)
    }

    fn replace_call(
        &mut self,
        index: u32,
        file: Option<File>,
    ) -> std::result::Result<(), SessionError> {
        let at = self.at(index)?;
        let call = call(file).map_err(|()| SessionError::NotAnEventfd(at))?;
        if self.vrings[at].running {
            self.host.set_call(super::ring_index(at), call);
        } else {
            self.vrings[at].call = call;
        }
        Ok(())
    }

    fn set_base(&mut self, index: u32, base: u32) -> std::result::Result<(), SessionError> {
        let at = self.at_rest(index)?;
        self.vrings[at].base = u16::try_from(base).map_err(|_| SessionError::RingBase(base))?;
        Ok(())
    }
}

impl<B: VhostUserBackend<Bitmap = ()> + Extras> VhostUserBackendReqHandlerMut for Session<B> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Deprecated; the specification recommends to ignore it.
    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        let result = self.reset();
        self.answer(result)
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered_features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let result = self.use_features(features);
        self.answer(result)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let result = self.replace_memory(regions, files);
        self.answer(result)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let result = self.set_size(index, num);
        self.answer(result)
    }

    /// The log address matters only with dirty logging, which is not offered.
    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let result =
            self.set_addresses(index, &Addresses { desc: descriptor, avail: available, used });
        self.answer(result)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let result = self.set_base(index, base);
        self.answer(result)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let result = self.at(index).and_then(|at| self.stop_for_base(at));
        let base = self.answer(result)?;
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let result = self.set_kick(u32::from(index), fd);
        self.answer(result)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let result = self.replace_call(u32::from(index), fd);
        self.answer(result)
    }

    /// A running ring keeps the one it has until it stops: front-ends set it
    /// before the start.
    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let result = self.at_rest(u32::from(index)).and_then(|at| {
            self.vrings[at].err = event(fd).map_err(|()| SessionError::NotAnEventfd(at))?;
            Ok(())
        });
        self.answer(result)
    }

    fn get_protocol_features(&mut self) -> Result<Protocol> {
        Ok(self.offered_protocol())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.offered_protocol().bits();
        if unknown != 0 {
            return self.answer(Err(SessionError::ProtocolFeatures(unknown)));
        }
        self.protocol = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.vrings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let result = self.set_enabled(index, enable);
        self.answer(result)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        Ok(self.device.get_config(offset, size))
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        let result = self.device.set_config(offset, buf).map_err(SessionError::Device);
        self.answer(result)
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        self.unsupported("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        self.unsupported("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(
        &mut self,
        inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        let result = self.make_area(inflight);
        self.answer(result)
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> Result<()> {
        let result = self.use_area(inflight, file);
        self.answer(result)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_SLOTS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let result = self.add_slot(region, fd);
        self.answer(result)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let result = self.remove_slot(region);
        self.answer(result)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        self.unsupported("SET_DEVICE_STATE_FD")
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.unsupported("CHECK_DEVICE_STATE")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        self.unsupported("GET_SHMEM_CONFIG")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        self.unsupported("SET_LOG_BASE")
    }
}
