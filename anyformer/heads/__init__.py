"""What is read off the stream at the end."""

TABLE = {
    "classify": "classify:Classify",
    "language": "language:Language",
    "masked": "masked:Masked",
    "pretraining": "pretraining:Pretraining",
    "regress": "regress:Regress",
    "sentence": "sentence:Sentence",
    "span": "span:Span",
    "tag": "tag:Tag",
    "tied": "tied:Tied",
}
