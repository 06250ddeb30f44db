//! A GGUF file, opened: typed metadata and tensors by name.

use std::io::{Read, Seek};

use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};

use crate::error::LoadError;

/// An opened file. Tensors are read one at a time, so that the file and its converted copy are never both in memory.
pub(crate) struct Gguf<R> {
    content: Content,
    reader: R,
}

impl<R: Read + Seek> Gguf<R> {
    pub(crate) fn read(mut reader: R) -> Result<Self, LoadError> {
        Ok(Self { content: Content::read(&mut reader)?, reader })
    }

    fn value<'a, T>(&'a self, key: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, LoadError> {
        self.content.metadata.get(key).and_then(read).ok_or_else(|| LoadError::Metadata(key.to_owned()))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str, LoadError> {
        self.value(key, |value| value.to_string().ok()).map(String::as_str)
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize, LoadError> {
        self.value(key, |value| value.to_u32().ok().and_then(|number| usize::try_from(number).ok()))
    }

    pub(crate) fn float(&self, key: &str) -> Result<f32, LoadError> {
        self.value(key, |value| value.to_f32().ok())
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>, LoadError> {
        self.value(key, |value| {
            let texts = value.to_vec().ok()?.iter().map(|text| text.to_string().ok().map(String::as_str));
            texts.collect()
        })
    }

    /// Writers disagree about the sign of small numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<i64>, LoadError> {
        self.value(key, |value| {
            let number = |value: &Value| match value {
                Value::I32(number) => Some(i64::from(*number)),
                other => other.to_u64().ok().and_then(|number| i64::try_from(number).ok()),
            };
            value.to_vec().ok()?.iter().map(number).collect()
        })
    }

    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    pub(crate) fn tensor(&mut self, name: &str) -> Result<QTensor, LoadError> {
        Ok(self.content.tensor(&mut self.reader, name, &Device::Cpu)?)
    }

    /// A tensor in f32, as the file's quantisation gives it back.
    pub(crate) fn floats(&mut self, name: &str) -> Result<Tensor, LoadError> {
        Ok(self.tensor(name)?.dequantize(&Device::Cpu)?)
    }
}
