//! A serialiser that keeps nothing but a hash, and looks past everything that only says when or how many.
//!
//! Skipped are fields that hold clocks and running numbers, by their name, and whole numbers altogether except counts that
//! decide something. What is left are words, structure and flags.
//!
//! **Invariant:** two states with the same hash differ at most in what no decision of a run reads, but for how much virtual
//! time has passed.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hasher as _};

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Fields that say when, in which order, or under which number.
const SKIPPED: &[&str] = &[
    "run",
    "run_id",
    "message_no",
    "last_error",
    "number",
    "workflow_id",
    "turns",
    "successor",
];
/// Whole numbers that decide something.
const COUNTED: &[&str] = &["begun", "ended", "last"];

pub(super) struct Fingerprint {
    first: DefaultHasher,
    second: DefaultHasher,
    /// The whole numbers of this field count.
    counted: bool,
}

impl Default for Fingerprint {
    fn default() -> Self {
        let mut second = DefaultHasher::new();
        second.write_u8(1);
        Self {
            first: DefaultHasher::new(),
            second,
            counted: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Never;

impl Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hashing does not fail")
    }
}

impl std::error::Error for Never {}

impl serde::ser::Error for Never {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

type Done = Result<(), Never>;

impl Fingerprint {
    pub(super) fn into_parts(self) -> (DefaultHasher, DefaultHasher) {
        (self.first, self.second)
    }

    fn tag(&mut self, tag: u8) -> Done {
        self.first.write_u8(tag);
        self.second.write_u8(tag);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Done {
        self.first.write_usize(text.len());
        self.first.write(text.as_bytes());
        self.second.write_usize(text.len());
        self.second.write(text.as_bytes());
        Ok(())
    }

    fn whole(&mut self, number: u64) -> Done {
        if self.counted {
            self.first.write_u64(number);
            self.second.write_u64(number);
        }
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
        if SKIPPED.contains(&name) {
            return Ok(());
        }
        self.text(name)?;
        let before = std::mem::replace(&mut self.counted, COUNTED.contains(&name));
        value.serialize(&mut *self)?;
        self.counted = before;
        Ok(())
    }
}

macro_rules! whole_numbers {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, value: $type) -> Done {
            // The bits are what counts.
            self.whole(value as u64)
        })*
    };
}

impl<'a> Serializer for &'a mut Fingerprint {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = &'a mut Fingerprint;
    type SerializeTuple = &'a mut Fingerprint;
    type SerializeTupleStruct = &'a mut Fingerprint;
    type SerializeTupleVariant = &'a mut Fingerprint;
    type SerializeMap = &'a mut Fingerprint;
    type SerializeStruct = &'a mut Fingerprint;
    type SerializeStructVariant = &'a mut Fingerprint;

    whole_numbers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    }

    fn serialize_bool(self, value: bool) -> Done {
        self.tag(2 + u8::from(value))
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Done {
        self.first.write_u64(value.to_bits());
        self.second.write_u64(value.to_bits());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Done {
        self.first.write_u32(u32::from(value));
        self.second.write_u32(u32::from(value));
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Done {
        self.text(text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Done {
        self.first.write(bytes);
        self.second.write(bytes);
        Ok(())
    }

    fn serialize_none(self) -> Done {
        self.tag(4)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        self.tag(5)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.tag(6)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.tag(6)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        self.text(variant)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Never> {
        self.tag(7)?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Never> {
        self.tag(7)?;
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Never> {
        self.tag(7)?;
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Self, Never> {
        self.text(variant)?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Never> {
        self.tag(8)?;
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Never> {
        self.tag(9)?;
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Self, Never> {
        self.text(variant)?;
        Ok(self)
    }
}

impl SerializeSeq for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.tag(10)?;
        value.serialize(&mut **self)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}

impl SerializeTuple for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}

impl SerializeTupleStruct for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}

impl SerializeTupleVariant for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}

impl SerializeMap for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.tag(12)?;
        // The number of an iteration, say.
        let before = std::mem::replace(&mut self.counted, true);
        key.serialize(&mut **self)?;
        self.counted = before;
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(&mut **self)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}

impl SerializeStruct for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
        self.field(name, value)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}

impl SerializeStructVariant for &mut Fingerprint {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
        self.field(name, value)
    }
    fn end(self) -> Done {
        self.tag(11)
    }
}
