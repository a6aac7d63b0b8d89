//! Closed lists whose members have a number in the tables and words for people.

/// An enumeration with `ALL`, every member in order of number, and `label`, its words.
macro_rules! labelled {
    (
        $(#[$about:meta])*
        pub enum $list:ident: $number:ident {
            $($(#[doc = $doc:literal])* $name:ident = $index:literal, $label:literal;)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr($number)]
        pub enum $list { $($(#[doc = $doc])* $name = $index,)* }

        impl $list {
            /// Every member, in order of number.
            pub const ALL: &'static [$list] = &[$($list::$name,)*];

            /// Its words.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $($list::$name => $label,)* }
            }

            /// What it says, in a sentence for people: its documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                let words = match self { $($list::$name => concat!($($doc,)*),)* };
                words.trim_ascii()
            }
        }
    };
}
