from tutelage.evaluation.rater import Answer
from tutelage.evaluation.verifier import VerifierRater
from tutelage.records import Message, Prompt


def test_answers_are_right_or_wrong_and_left_out_where_nothing_is_known():
    prompts = [Prompt(str(i), (Message("user", "?"),), reference=r) for i, r in enumerate("77x")]
    answers = [Answer(text, ended=True) for text in ("#### 7", "8", "7")]
    rater = VerifierRater("final_number")
    assert rater.rate(prompts, answers) == {"accuracy": [1.0, 0.0, None]}
    assert [measure.key for measure in rater.measures] == ["accuracy"]
