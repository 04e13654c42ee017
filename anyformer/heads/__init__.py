"""What is read off the stream at the end."""

TABLE = {
    "capped": "capped:Capped",
    "classify": "classify:Classify",
    "distilled": "distilled:Distilled",
    "first_and_mean": "first_and_mean:FirstAndMean",
    "language": "language:Language",
    "mark": "mark:Mark",
    "masked": "masked:Masked",
    "pretraining": "pretraining:Pretraining",
    "probe": "probe:Probe",
    "regress": "regress:Regress",
    "replaced": "replaced:Replaced",
    "sentence": "sentence:Sentence",
    "span": "span:Span",
    "tag": "tag:Tag",
    "tied": "tied:Tied",
}
