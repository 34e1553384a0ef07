"""The shortcuts of a task, as plain data that the record and the tables read without torch."""

from sparsity_lab.core.config import Config

RULE_BAR, BAG_BAR = 0.75, 0.85  # accuracies of rule and bag of tokens above which a task needs a caveat


class Shortcuts(Config):
    """How often rules without a model answer a task's held-out prompts. Chance is 0.5.

    `rule` is the best rule on one token, position or length, in words, and `rule_accuracy` its accuracy.
    `bag_accuracy` is that of a logistic regression on the counts of the prompt's tokens. Rules are fitted on
    `train_prompts` prompts of the training split and measured on `test_prompts` of the test split.
    """

    rule: str
    rule_accuracy: float
    bag_accuracy: float
    train_prompts: int
    test_prompts: int
