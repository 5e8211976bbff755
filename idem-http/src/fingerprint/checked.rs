//! Whether a value has a JSON form of its own.
//!
//! Owns one check: JSON has no number for NaN and the infinities, and `serde_json` writes `null` for each of them, so that
//! they would be taken for each other and for nothing. Every other question is left to `serde_json`.

use std::fmt::{self, Display};

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Looks at every number in a value.
///
/// # Errors
///
/// When one has no JSON form, or when the value's own implementation of `Serialize` fails.
pub fn check_numbers<T: Serialize + ?Sized>(value: &T) -> Result<(), serde_json::Error> {
    value
        .serialize(Check)
        .map_err(|Failed(why)| serde_json::Error::custom(why))
}

#[derive(Debug)]
struct Failed(String);

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl Error for Failed {
    fn custom<T: Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

type Checked = Result<(), Failed>;

#[derive(Clone, Copy)]
struct Check;

/// Values without a number that JSON lacks.
macro_rules! fine {
    ($($method:ident: $ty:ty;)*) => {
        $(fn $method(self, _: $ty) -> Checked { Ok(()) })*
    };
}

/// What values are in.
macro_rules! begins {
    ($($method:ident($($argument:ty),*);)*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<Self, Failed> { Ok(self) })*
    };
}

impl Serializer for Check {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fine! {
        serialize_bool: bool;
        serialize_i8: i8;
        serialize_i16: i16;
        serialize_i32: i32;
        serialize_i64: i64;
        serialize_i128: i128;
        serialize_u8: u8;
        serialize_u16: u16;
        serialize_u32: u32;
        serialize_u64: u64;
        serialize_u128: u128;
        serialize_char: char;
        serialize_str: &str;
        serialize_bytes: &[u8];
        serialize_unit_struct: &'static str;
    }

    begins! {
        serialize_seq(Option<usize>);
        serialize_tuple(usize);
        serialize_tuple_struct(&'static str, usize);
        serialize_tuple_variant(&'static str, u32, &'static str, usize);
        serialize_map(Option<usize>);
        serialize_struct(&'static str, usize);
        serialize_struct_variant(&'static str, u32, &'static str, usize);
    }

    fn serialize_f32(self, number: f32) -> Checked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Checked {
        if number.is_finite() {
            return Ok(());
        }
        Err(Failed(format!("JSON has no number {number}")))
    }

    fn serialize_none(self) -> Checked {
        Ok(())
    }

    fn serialize_unit(self) -> Checked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Checked {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Checked {
        value.serialize(self)
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Checked {
        Ok(())
    }
}

/// Elements and fields of what values are in.
macro_rules! holds {
    ($($within:ident: $method:ident($($name:ty)?);)*) => {
        $(impl $within for Check {
            type Ok = ();
            type Error = Failed;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Checked {
                value.serialize(*self)
            }

            fn end(self) -> Checked {
                Ok(())
            }
        })*
    };
}

holds! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}

impl SerializeMap for Check {
    type Ok = ();
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        value.serialize(*self)
    }

    fn end(self) -> Checked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    enum Price {
        None,
        Newtype(f64),
        Tuple(u8, f32),
        Struct { amount: Option<f64> },
    }

    #[derive(Serialize)]
    struct Fraction(f64);

    #[derive(Serialize)]
    struct Point(u8, f64);

    #[derive(Serialize)]
    struct Order<T> {
        item: &'static str,
        price: T,
    }

    #[test]
    fn a_number_without_a_json_form_is_found_wherever_it_is() {
        fn order<T: Serialize>(price: T) -> Checked {
            Order {
                item: "umbrella",
                price,
            }
            .serialize(Check)
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(number.serialize(Check).is_err());
            assert!(order(number).is_err());
            assert!(order(Some(number)).is_err());
            assert!(order((1, number)).is_err());
            assert!(order(vec![1.0, number]).is_err());
            assert!(order(BTreeMap::from([("a", number)])).is_err());
            assert!(order(Price::Newtype(number)).is_err());
            assert!(order(Price::Struct { amount: Some(number) }).is_err());
            assert!(order(Fraction(number)).is_err());
            assert!(order(Point(1, number)).is_err());
        }
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(order(number).is_err());
            assert!(order(Price::Tuple(1, number)).is_err());
        }
        assert!(order(f64::MAX).is_ok() && order(f32::MIN).is_ok() && order(0.0).is_ok());
        assert!(order(Price::None).is_ok() && order(()).is_ok() && order(None::<f64>).is_ok());
    }
}
