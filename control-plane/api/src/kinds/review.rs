//! authentication.k8s.io and authorization.k8s.io: questions about users, which are answered and never stored.

use crate::table::{BASE, Resource, Subresource};

const REVIEW: Resource = Resource {
    namespaced: false,
    verbs: &["create"],
    ..BASE
};

const AUTHENTICATION: Resource = Resource {
    group: "authentication.k8s.io",
    ..REVIEW
};

const AUTHORIZATION: Resource = Resource {
    group: "authorization.k8s.io",
    ..REVIEW
};

/// Who am I?
pub(crate) static SELF_SUBJECT_REVIEWS: Resource = Resource {
    kind: "SelfSubjectReview",
    list_kind: "SelfSubjectReviewList",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
    ..AUTHENTICATION
};

/// Whose token is this?
pub(crate) static TOKEN_REVIEWS: Resource = Resource {
    kind: "TokenReview",
    list_kind: "TokenReviewList",
    plural: "tokenreviews",
    singular: "tokenreview",
    definition: "io.k8s.api.authentication.v1.TokenReview",
    ..AUTHENTICATION
};

/// May somebody do this in a namespace?
pub(crate) static LOCAL_SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    kind: "LocalSubjectAccessReview",
    list_kind: "LocalSubjectAccessReviewList",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    namespaced: true,
    ..AUTHORIZATION
};

/// May I do this?
pub(crate) static SELF_SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    kind: "SelfSubjectAccessReview",
    list_kind: "SelfSubjectAccessReviewList",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    ..AUTHORIZATION
};

/// What may I do?
pub(crate) static SELF_SUBJECT_RULES_REVIEWS: Resource = Resource {
    kind: "SelfSubjectRulesReview",
    list_kind: "SelfSubjectRulesReviewList",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    ..AUTHORIZATION
};

/// May somebody do this?
pub(crate) static SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    kind: "SubjectAccessReview",
    list_kind: "SubjectAccessReviewList",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    definition: "io.k8s.api.authorization.v1.SubjectAccessReview",
    ..AUTHORIZATION
};

/// `serviceaccounts/token`: a token for the account.
pub(crate) const TOKEN: Subresource = Subresource {
    name: "token",
    kind: "TokenRequest",
    group_version: Some(("authentication.k8s.io", "v1")),
    verbs: &["create"],
};
