//! Volumes of pods, as far as they are claims.

use serde::{Deserialize, Deserializer};

use super::or_default;

/// A volume of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Unique within the pod.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// It is a PersistentVolumeClaim of the pod's namespace.
    pub persistent_volume_claim: Option<ClaimVolumeSource>,
    /// It is a claim that is made for the pod, named after the pod and the volume, and goes with the pod.
    pub ephemeral: Option<EphemeralVolumeSource>,
}

/// `persistentVolumeClaim` of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimVolumeSource {
    /// Name of the PersistentVolumeClaim.
    #[serde(deserialize_with = "or_default")]
    pub claim_name: String,
}

/// `ephemeral` of a volume. What the claim is made from is nobody's concern here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EphemeralVolumeSource {}

/// Reads the volumes that are claims. Every pod has others, and nobody asks for those.
pub(super) fn claims<'de, D>(deserializer: D) -> Result<Vec<Volume>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut volumes: Vec<Volume> = or_default(deserializer)?;
    volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
    volumes.shrink_to_fit();
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::PodSpec;
    use super::*;

    #[test]
    fn volumes_that_are_no_claims_are_left_out() {
        let spec: PodSpec = serde_json::from_value(json!({"volumes": [
            {"name": "kube-api-access", "projected": {"sources": []}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "none", "persistentVolumeClaim": null},
        ]}))
        .unwrap();
        let claim = ClaimVolumeSource {
            claim_name: "c".to_owned(),
        };
        let expected = [
            Volume {
                name: "data".to_owned(),
                persistent_volume_claim: Some(claim),
                ephemeral: None,
            },
            Volume {
                name: "scratch".to_owned(),
                persistent_volume_claim: None,
                ephemeral: Some(EphemeralVolumeSource {}),
            },
        ];
        assert_eq!(spec.volumes, expected);
        let spec: PodSpec = serde_json::from_value(json!({"volumes": null})).unwrap();
        assert_eq!(spec.volumes, []);
    }
}
