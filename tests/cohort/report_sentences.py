"""Sentences as radiologists write them, and what each says of 13 labels: written by hand, apart from any report."""

from __future__ import annotations

NAMES = {
    "ECM": "enlarged_cardiomediastinum",
    "CM": "cardiomegaly",
    "LO": "lung_opacity",
    "LL": "lung_lesion",
    "ED": "edema",
    "CO": "consolidation",
    "PN": "pneumonia",
    "AT": "atelectasis",
    "PX": "pneumothorax",
    "EF": "pleural_effusion",
    "PO": "pleural_other",
    "FX": "fracture",
    "SD": "support_devices",
}

# What is said (before implication): + present, - absent, ? uncertain. A label that is not named must stay empty.
TABLE = """
No pneumothorax. | PX-
There is no pneumothorax, effusion or focal consolidation. | PX- EF- CO-
No pleural effusion, pneumothorax, or focal airspace consolidation. | EF- PX- LO- CO-
Without focal consolidation or pleural effusion. | CO- EF-
The lungs are clear without evidence of pneumonia or edema. | LO- CO- PN- ED-
Negative for pneumothorax or pleural effusion. | PX- EF-
No evidence of pneumothorax. | PX-
No definite pleural effusion is seen. | EF-
No large pleural effusion. | EF-
Neither pneumothorax nor pleural effusion is seen. | PX- EF-
Pneumothorax is not seen. | PX-
A pleural effusion is not identified. | EF-
The previously seen pneumothorax has resolved. | PX-
The right pleural effusion has completely resolved. | EF-
Interval resolution of the left effusion. | EF-
The pneumothorax is no longer visible. | PX-
Pneumothorax has been excluded. | PX-
Pneumonia is unlikely. | PN-
Lungs are free of focal airspace disease. | LO-
There is absence of pleural fluid. | EF-
Free of consolidation, pneumothorax and effusion. | CO- PX- EF-
The heart is not enlarged. | CM-
The cardiac silhouette is not enlarged. | CM-
No cardiomegaly. | CM-
Heart size is normal. | CM-
Normal heart size. | CM-
The heart size is within normal limits. | CM-
The cardiomediastinal silhouette is within normal limits. | ECM- CM-
Cardiomediastinal contours are unremarkable. | ECM- CM-
The mediastinum is unremarkable. | ECM-
The heart is enlarged. | CM+
Mild cardiomegaly. | CM+
Stable cardiomegaly without overt edema. | CM+ ED-
Cardiomegaly is again noted and there is no effusion. | CM+ EF-
Enlarged cardiac silhouette. | CM+
The cardiac silhouette is moderately enlarged. | CM+
Borderline cardiomegaly. | CM?
The heart is borderline in size. | CM?
Heart size is top normal. | CM-
The heart is at the upper limits of normal in size. | CM-
Cardiac enlargement is unchanged. | CM+
The mediastinum is widened. | ECM+
There is widening of the mediastinum. | ECM+
No mediastinal widening. | ECM-
Enlarged cardiomediastinal silhouette. | ECM+
Right lower lobe opacity. | LO+
Patchy opacities in both lung bases. | LO+
Left lower lobe infiltrate. | LO+
Bibasilar airspace disease. | LO+
Ground-glass opacities in the right upper lobe. | LO+
No focal opacity. | LO-
No focal airspace opacity to suggest pneumonia. | LO- PN-
There is hazy opacification of the left base. | LO+
Diffuse reticular opacities. | LO+
The lungs are otherwise clear. | LO-
A 9 mm nodule is seen in the left upper lobe. | LL+
Multiple pulmonary nodules. | LL+
Large right hilar mass. | LL+
No suspicious nodules or masses. | LL-
No noncalcified nodule. | LL-
Nodular opacity at the right base. | LO+ LL?
Possible nodule in the right apex. | LL?
Pulmonary metastases are present. | LL+
Lytic lesion in the fifth rib. |
Cavitary lesion in the right upper lobe. | LL+
Mild pulmonary edema. | ED+
Pulmonary edema has resolved. | ED-
No overt pulmonary edema. | ED-
Findings consistent with congestive heart failure. | ED+
Interstitial edema is suspected. | LO? ED?
No heart failure. | ED-
Right middle lobe consolidation. | CO+
Consolidation in the left lower lobe with air bronchograms. | CO+
No consolidation. | CO-
Dense left lower lobe consolidation, likely pneumonia. | CO+ PN+
Left lower lobe pneumonia. | PN+
Findings are concerning for pneumonia. | PN?
This may represent pneumonia or atelectasis. | PN? AT?
Right basilar opacity, atelectasis versus pneumonia. | LO+ AT? PN?
Pneumonia cannot be excluded. | PN?
Cannot exclude pneumonia. | PN?
Underlying pneumonia is not excluded. | PN?
It is difficult to exclude a small effusion. | EF?
Superimposed infection cannot be completely excluded. | PN?
No convincing evidence of pneumonia. | PN-
Bibasilar atelectasis. | AT+
Linear subsegmental atelectasis at the left base. | AT+
Low lung volumes with bibasilar atelectasis. | AT+
There is left lower lobe collapse. | AT+
Collapse of the T8 vertebral body. |
Minimal scarring or atelectasis. | AT+
No atelectasis. | AT-
Small right apical pneumothorax. | PX+
Moderate hydropneumothorax on the left. | PX+ EF+
No change in the small left pneumothorax. | PX+
No significant interval change in the right pleural effusion. | EF+
No increase in the left pleural effusion. | EF+
The left pneumothorax has not significantly changed. | PX+
Persistent left pneumothorax, without change. | PX+
The effusion is unchanged. | EF+
The effusion has not resolved. | EF+
No new infiltrate. | LO-
No new or enlarging effusion. | EF-
Small bilateral pleural effusions. | EF+
Right pleural effusion with adjacent atelectasis. | EF+ AT+
Trace left effusion, but no pneumothorax. | EF+ PX-
No effusion, however there is a small pneumothorax. | EF- PX+
No pneumothorax; moderate left effusion. | PX- EF+
No consolidation is seen and there are small effusions. | CO- EF+
Clear lungs apart from left basilar atelectasis. | LO- AT+
No acute abnormality other than mild cardiomegaly. | CM+
No pneumothorax although a small effusion persists. | PX- EF+
Possible small left pleural effusion. | EF?
There may be a trace right effusion. | EF?
Question of a tiny apical pneumothorax. | PX?
Pericardial effusion. |
Biapical pleural thickening. | PO+
Calcified pleural plaques. | PO+
No pleural thickening. | PO-
Pleural scarring at the left base. | PO+
Pleural effusion or pleural thickening on the right. | EF+ PO+
Healed right rib fractures. | FX+
No acute fracture. | FX-
No displaced rib fracture is seen. | FX-
Old left clavicle fracture. | FX+
Compression deformity of T12. | FX+
The osseous structures are intact. | FX-
No fracture or dislocation. | FX-
Nondisplaced fracture of the left seventh rib cannot be excluded. | FX?
Right internal jugular central venous catheter with tip in the SVC. | SD+
Endotracheal tube tip 4 cm above the carina. | SD+
The endotracheal tube has been removed. | SD-
Interval removal of the chest tube. | SD-
Left chest wall pacemaker with leads in the right atrium and ventricle. | SD+
Median sternotomy wires are intact. | SD+
Nasogastric tube courses below the diaphragm. | SD+
Right PICC line terminates in the cavoatrial junction. | SD+
No lines or tubes. | SD-
History of pneumonia. |
Rule out pneumonia. |
Evaluate for pneumothorax. |
If there is clinical concern for rib fracture, dedicated views are recommended. |
Correlate clinically for infection. |
Patient with history of CHF, now with right effusion. | EF+
Comparison is made to the prior examination. |
XXXX opacities in the XXXX lobe. | LO+
There are no XXXX of a pleural effusion. | EF-
Heart XXXX and mediastinum are normal. | CM- ECM-
No ___ pneumothorax. | PX-
1. No pneumothorax. | PX-
The right effusion is likely decreased. | EF+
Improving left lower lobe pneumonia. | PN+
Resolving right pneumothorax. | PX+
Decreased, but not resolved, left effusion. | EF+
There is not only consolidation but also an effusion. | CO+ EF+
Hyperinflated lungs without focal consolidation. | CO-
Hilar and mediastinal contours are normal. | ECM-
No focal consolidation with small bilateral effusions. | CO- EF+
Heart and lungs are normal. | CM- LO-
"""


def rows() -> list[tuple[str, dict[str, float]]]:
    """Return each sentence with the labels that it states."""
    value = {"+": 1.0, "-": 0.0, "?": -1.0}
    found = []
    for line in TABLE.strip().splitlines():
        sentence, _, said = line.rpartition("|")
        found.append((sentence.strip(), {NAMES[word[:-1]]: value[word[-1]] for word in said.split()}))
    return found
