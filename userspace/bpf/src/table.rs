//! One table: a hash that is written in batches, or an array that is mapped into memory.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pins::Pins;
use crate::spec::Spec;
use crate::sys::{self, Mapping};
use crate::{Error, show};

/// Elements in one batched system call: large enough that the calls do not matter, small enough that the kernel
/// never works on one for long.
const BATCH: usize = 4096;

/// What a key or value of a table is: plain bytes of fixed length.
pub(crate) trait Element: FromBytes + IntoBytes + Immutable + Copy + Debug {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + Debug> Element for T {}

/// Opens a pinned table; also returns how many entries it can hold. Its keys and values are of the sizes that
/// `spec` says, which every read and write of it relies on.
pub(crate) fn open_pinned(
    pins: &Pins,
    spec: &Spec,
    read_only: bool,
) -> Result<(OwnedFd, u32), Error> {
    let path = pins.map(spec.name);
    let fd = sys::get(&path, read_only).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(pins, spec),
        io::ErrorKind::PermissionDenied => Error::Capabilities {
            missing: vec!["CAP_BPF"],
        },
        _ => Error::path("open", &path)(error),
    })?;
    let info =
        sys::map_info(fd.as_fd()).map_err(|source| spec.failed("look at", "the shape", source))?;
    spec.check_shape(&info)?;
    Ok((fd, info.entries_max))
}

/// What to say of a table that is not there: everything else may be.
fn missing(pins: &Pins, spec: &Spec) -> Error {
    let path = pins.root().to_owned();
    if pins.map(abi::counters::NAME).exists() {
        let table = spec.name;
        Error::Missing { path, table }
    } else {
        Error::NotLoaded { path }
    }
}

/// A hash table, least-recently-used or not.
#[derive(Debug)]
pub(crate) struct Hash<K, V> {
    spec: Spec,
    fd: OwnedFd,
    capacity: u32,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Element + show::Show, V: Element> Hash<K, V> {
    pub(crate) fn open(pins: &Pins, spec: Spec, read_only: bool) -> Result<Self, Error> {
        let (fd, capacity) = open_pinned(pins, &spec, read_only)?;
        Ok(Hash {
            spec,
            fd,
            capacity,
            types: PhantomData,
        })
    }

    /// Of a table that is pinned nowhere.
    pub(crate) fn of(fd: OwnedFd, spec: Spec) -> Result<Self, Error> {
        let info = sys::map_info(fd.as_fd())
            .map_err(|source| spec.failed("look at", "the shape", source))?;
        spec.check_shape(&info)?;
        Ok(Hash {
            spec,
            fd,
            capacity: info.entries_max,
            types: PhantomData,
        })
    }

    /// Number of entries that the table can hold.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Inserts or replaces elements.
    ///
    /// # Errors
    ///
    /// The position of the first element that the kernel refused; those before it are in.
    pub(crate) fn insert(&self, keys: &[K], values: &[V]) -> Result<(), (usize, Error)> {
        let mut done = 0;
        while done < keys.len() {
            let end = keys.len().min(done + BATCH);
            let (keys, values) = (&keys[done..end], &values[done..end]);
            let one =
                |i: usize| sys::update(self.fd.as_fd(), keys[i].as_bytes(), values[i].as_bytes());
            let batch = |from: usize| {
                sys::update_batch(
                    self.fd.as_fd(),
                    keys[from..].as_bytes(),
                    values[from..].as_bytes(),
                    keys.len() - from,
                )
            };
            write(keys.len(), one, batch)
                .map_err(|(i, error)| (done + i, self.refused("write", &keys[i], error)))?;
            done = end;
        }
        Ok(())
    }

    /// Inserts an element, unless there is one of its key.
    pub(crate) fn insert_new(&self, key: &K, value: &V) -> Result<(), Error> {
        match sys::insert(self.fd.as_fd(), key.as_bytes(), value.as_bytes()) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
                Err(self.refused("write", key, error))
            }
            _ => Ok(()),
        }
    }

    /// Deletes elements; one that is not there is as good as deleted.
    ///
    /// # Errors
    ///
    /// The position of the first element that the kernel refused to delete; those before it are gone.
    pub(crate) fn remove(&self, keys: &[K]) -> Result<(), (usize, Error)> {
        let mut done = 0;
        while done < keys.len() {
            let end = keys.len().min(done + BATCH);
            let keys = &keys[done..end];
            let one = |i: usize| match sys::delete(self.fd.as_fd(), keys[i].as_bytes()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                result => result,
            };
            let batch = |from: usize| {
                sys::delete_batch(self.fd.as_fd(), keys[from..].as_bytes(), keys.len() - from)
            };
            write(keys.len(), one, batch)
                .map_err(|(i, error)| (done + i, self.refused("delete", &keys[i], error)))?;
            done = end;
        }
        Ok(())
    }

    /// Reads one element; `None` where there is none.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = V::new_zeroed();
        match sys::lookup(self.fd.as_fd(), key.as_bytes(), value.as_mut_bytes()) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(self.spec.failed("read", &key.show(), error)),
        }
    }

    /// Reads up to `limit` elements, in the kernel's order.
    pub(crate) fn entries(&self, limit: usize) -> Result<Vec<(K, V)>, Error> {
        let mut entries = Vec::new();
        self.walk(|keys, values| {
            let read = keys.iter().copied().zip(values.iter().copied());
            entries.extend(read.take(limit - entries.len()));
            entries.len() < limit
        })?;
        Ok(entries)
    }

    /// Number of elements.
    pub(crate) fn count(&self) -> Result<u32, Error> {
        let mut count = 0;
        self.walk(|keys, _| {
            count += keys.len() as u32;
            true
        })?;
        Ok(count)
    }

    /// Shows every element, in the kernel's order, some thousands at a time and no more of them in memory; ends where
    /// `visit` returns false. Elements that come and go meanwhile may be seen or not.
    pub(crate) fn walk(&self, visit: impl FnMut(&[K], &[V]) -> bool) -> Result<(), Error> {
        self.read(visit)
            .map_err(|source| self.spec.failed("read", "the elements", source))
    }

    fn read(&self, mut visit: impl FnMut(&[K], &[V]) -> bool) -> io::Result<()> {
        let mut from: Option<sys::Cursor> = None;
        let mut to: sys::Cursor = [0; 64];
        let mut size = BATCH;
        let mut keys = vec![K::new_zeroed(); size];
        let mut values = vec![V::new_zeroed(); size];
        loop {
            let read = sys::lookup_batch(
                self.fd.as_fd(),
                from.as_ref(),
                &mut to,
                bytes_mut(&mut keys),
                bytes_mut(&mut values),
                size,
            );
            let (count, more) = match read {
                Ok(read) => read,
                // A single bucket holds more than we made room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    size *= 2;
                    keys.resize(size, K::new_zeroed());
                    values.resize(size, V::new_zeroed());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = count.min(size);
            if !visit(&keys[..count], &values[..count]) || !more {
                return Ok(());
            }
            from = Some(to);
        }
    }

    fn refused(&self, action: &'static str, key: &K, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Error::Full {
                table: self.spec.name,
                key: key.show(),
                capacity: self.capacity,
                flag: self.spec.flag,
            },
            _ => self.spec.failed(action, &key.show(), error),
        }
    }
}

/// Writes `len` elements: as a batch, or one by one where that is simpler or the batch stopped at an element,
/// which may be fine alone.
fn write(
    len: usize,
    one: impl Fn(usize) -> io::Result<()>,
    batch: impl Fn(usize) -> Result<(), usize>,
) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < len {
        if len > 2 {
            match batch(done) {
                Ok(()) => return Ok(()),
                Err(stopped) => done += stopped.min(len - done - 1),
            }
        }
        one(done).map_err(|error| (done, error))?;
        done += 1;
    }
    Ok(())
}

fn bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    let len = size_of_val(elements);
    // SAFETY: plain bytes for which every pattern is valid (`FromBytes`) and which have no padding
    // (`IntoBytes`), borrowed exclusively, of exactly this length.
    unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast::<u8>(), len) }
}

/// An array table in shared memory, which is mapped in parts as they are needed: an array may be far larger than what
/// is in use of it.
#[derive(Debug)]
pub(crate) struct Array<T> {
    spec: Spec,
    fd: OwnedFd,
    read_only: bool,
    parts: Box<[OnceLock<Mapping>]>,
    capacity: u32,
    types: PhantomData<fn() -> T>,
}

/// Elements of a part. With their size a multiple of eight a part is one of every page size.
pub(crate) const PART: u32 = 1 << 15;

impl<T: Element + PartialEq> Array<T> {
    /// 64-bit words of an element. The kernel spaces elements by multiples of eight bytes.
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() <= 64);
        size_of::<T>() / 8
    };

    pub(crate) fn open(pins: &Pins, spec: Spec, read_only: bool) -> Result<Self, Error> {
        // The kernel shares an array only through a descriptor that may write, even for reading.
        let (fd, capacity) = open_pinned(pins, &spec, false)?;
        let array = Array {
            spec,
            fd,
            read_only,
            parts: (0..capacity.div_ceil(PART))
                .map(|_| OnceLock::new())
                .collect(),
            capacity,
            types: PhantomData,
        };
        array.part(0)?; // what cannot be mapped is known at the start
        Ok(array)
    }

    /// Number of elements.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The words of an element, as they are shared.
    pub(crate) fn words(&self, index: u32) -> Result<&[AtomicU64], Error> {
        self.element(index)
    }

    /// Writes one element. The last word goes last: a type keeps there what makes the element valid.
    pub(crate) fn set(&self, index: u32, value: &T) -> Result<(), Error> {
        let words = self.element(index)?;
        for (word, bytes) in words.iter().zip(value.as_bytes().chunks_exact(8)) {
            let bytes: [u8; 8] = bytes.try_into().unwrap_or_default();
            word.store(u64::from_ne_bytes(bytes), Ordering::Release);
        }
        Ok(())
    }

    /// Empties one element, its last word first.
    pub(crate) fn clear(&self, index: u32) -> Result<(), Error> {
        for word in self.element(index)?.iter().rev() {
            word.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// One element; an empty one where it is beyond the end.
    pub(crate) fn get(&self, index: u32) -> T {
        let mut value = T::new_zeroed();
        if let Ok(words) = self.element(index) {
            let bytes = bytes_mut(std::slice::from_mut(&mut value));
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
            }
        }
        value
    }

    /// Every element that is not empty, in order of index.
    ///
    /// # Errors
    ///
    /// When the kernel does not share a part of it.
    pub(crate) fn entries(&self) -> Result<Vec<(u32, T)>, Error> {
        let mut entries = Vec::new();
        self.visit(|index, words| {
            let mut value = T::new_zeroed();
            let bytes = bytes_mut(std::slice::from_mut(&mut value));
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
            entries.push((index, value));
        })?;
        Ok(entries)
    }

    /// Number of elements that are not empty.
    ///
    /// # Errors
    ///
    /// As [`Array::entries`].
    pub(crate) fn used(&self) -> Result<u32, Error> {
        let mut used = 0;
        self.visit(|_, _| used += 1)?;
        Ok(used)
    }

    /// Shows every element that is not empty. Parts that were not mapped before are not afterwards.
    fn visit(&self, mut see: impl FnMut(u32, &[AtomicU64])) -> Result<(), Error> {
        for (at, part) in (0u32..).zip(&self.parts) {
            let passing;
            let mapping = match part.get() {
                Some(mapping) => mapping,
                None => {
                    passing = self.map(at)?;
                    &passing
                }
            };
            let elements = mapping.words().chunks_exact(Self::WORDS);
            for (index, words) in (at * PART..self.capacity).zip(elements) {
                if words.iter().any(|word| word.load(Ordering::Relaxed) != 0) {
                    see(index, words);
                }
            }
        }
        Ok(())
    }

    fn element(&self, index: u32) -> Result<&[AtomicU64], Error> {
        if index >= self.capacity {
            return Err(Error::Full {
                table: self.spec.name,
                key: format!("element {index}"),
                capacity: self.capacity,
                flag: self.spec.flag,
            });
        }
        let start = (index % PART) as usize * Self::WORDS;
        Ok(&self.part(index / PART)?.words()[start..start + Self::WORDS])
    }

    /// A part of the array, mapped from now on.
    fn part(&self, at: u32) -> Result<&Mapping, Error> {
        let part = &self.parts[at as usize];
        if let Some(mapping) = part.get() {
            return Ok(mapping);
        }
        let mapping = self.map(at)?;
        Ok(part.get_or_init(|| mapping))
    }

    fn map(&self, at: u32) -> Result<Mapping, Error> {
        let elements = PART.min(self.capacity - at * PART) as usize;
        let len = (elements * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let offset = at as usize * PART as usize * size_of::<T>();
        Mapping::new(&self.fd, offset, len, self.read_only)
            .map_err(|source| self.spec.failed("map", "the elements", source))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Writes 0..`len` to a kernel that refuses `bad`, and `alone` in batches; returns what it holds then.
    fn written(
        len: usize,
        bad: Option<usize>,
        alone: Option<usize>,
    ) -> (Vec<usize>, Option<usize>) {
        let held = RefCell::new(Vec::new());
        let one = |i: usize| {
            if Some(i) == bad {
                return Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            held.borrow_mut().push(i);
            Ok(())
        };
        let batch = |from: usize| {
            for i in from..len {
                if Some(i) == alone || one(i).is_err() {
                    return Err(i - from);
                }
            }
            Ok(())
        };
        let failed = write(len, one, batch).err().map(|(i, _)| i);
        (held.into_inner(), failed)
    }

    #[test]
    fn each_element_is_written_once_and_the_refused_one_is_named() {
        for len in [0, 1, 2, 3, 10] {
            let all: Vec<_> = (0..len).collect();
            assert_eq!(written(len, None, None), (all.clone(), None));
            for bad in 0..len {
                let got = written(len, Some(bad), None);
                assert_eq!(got, (all[..bad].to_vec(), Some(bad)), "{len}");
                let got = written(len, None, Some(bad));
                assert_eq!(got, (all.clone(), None), "{len}");
            }
        }
    }
}
