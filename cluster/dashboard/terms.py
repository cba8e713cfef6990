"""The explanations of the pages' short words. docs/glossary.md has the same texts; a test compares them."""

from __future__ import annotations

TERMS = {
    "bubble": "The share of the workers' time, evaluations left out, in which they compute nothing because they wait "
    "for an array or are held up while sending",
    "bubble, measured": "The bubble over the last steps",
    "bubble, predicted": "The bubble that the schedule, and sharing cores, would have with the measured times of its "
    "actions, if sending took no time",
    "by the formula": "How long a worker idles by the law of the schedule, as a share of the step: p stages, w "
    "workers; F and I are the times of a stage",
    "bubble rate": "The bubble of the zero-bubble papers: it leaves out that workers begin and end one after the other",
    "as papers count": "The bubble if a backward pass is one action, which sends nothing before its end. Workers send "
    "the input gradient before they compute the weight gradient",
    "step alone": "How long a step takes from its first action to its last one. A job with clipping takes as long",
    "in a row": "How long a step takes if the next one begins before all workers have ended it, as in a job without "
    "clipping: the longest time from a worker's first action to its last one",
    "kept a worker": "The most micro-batches whose activations a worker keeps at once for the backward pass; with two "
    "stages a worker, those of one stage count half",
    "messages": "Arrays that workers send each other in a step",
    "step from": "Program: a dry run of the whole step. Law: exact, by the law of the schedule. Estimate: from smaller "
    "steps, with the error of the same estimate for a step that was performed",
    "latency": "How long an array takes from one worker to the next, in the unit of F, I and W",
    "memory": "The most micro-batches that a worker can keep; 0: any number",
    "F of a worker": "How long a worker's layers take for the forward pass of a micro-batch, in any unit",
    "I of a worker": "How long a worker's layers take for the input gradients of a micro-batch",
    "W of a worker": "How long a worker's layers take for the weight gradients of a micro-batch",
    "length": "How long a step takes, counted in forward passes of one micro-batch",
    "most kept": "The most micro-batches whose activations a worker keeps at once for the backward pass",
    "micro-batches kept": "The most micro-batches whose activations the stage keeps at once for the backward pass",
    "idle": "The share of the step in which the stage's worker waits",
    "time of I and of W": "How long computing an input gradient (I) takes, and a weight gradient (W), if a forward "
    "pass takes 1",
    "step": "One update: forward pass, backward pass and optimizer for one batch",
    "mean loss": "The mean loss of the training rows over the present epoch so far; a loss that is a sum is "
    "shown per row",
    "validation loss": "The loss on rows that are not trained on, in the last evaluation; a loss that is a sum is "
    "shown per row",
    "validation accuracy": "The share of validation rows whose largest output is the right label",
    "precision": "Of the rows that were predicted as this class, the share that belongs to it",
    "recall": "Of the rows of this class, the share that was predicted as it",
    "F1": "The harmonic mean of precision and recall",
    "R²": "The share of the target's variance that the predictions explain: 1 is perfect, 0 is no better than its mean",
    "MAE": "The mean absolute error, in the target's unit",
    "RMSE": "The root of the mean squared error, in the target's unit",
    "perplexity": "The number of tokens among which the network seems to choose the next one at random: e to the power "
    "of the validation loss; jobs on text only",
    "bits/byte": "Bits that the network needs for a byte of the validation text, whatever its tokens are",
    "samples/s": "Training rows a second over the last steps",
    "time of a step": "The mean over the last steps, from the end of one step to the end of the next; in brackets the "
    "median, in which the few steps that were held up hardly count",
    "last step": "When the last step ended",
    "running": "Time since the attempt started",
    "took": "Time from the start of the attempt to its end",
    "time left": "The time for the remaining steps at the speed of the last ones, without evaluations",
    "place in the queue": "The job's place among the jobs that wait for CPUs and memory",
    "stage": "A group of neighbouring layers; together the stages are the network",
    "worker": "One process (a Ray actor) that computes one or more stages. With --local a worker is a thread",
    "holds": "Weights, gradients, optimizer state and kept activations of the stage",
    "activations": "The most bytes of layer outputs kept for the backward pass: measured, and as the plan predicted",
    "peak of the process": "The most memory that the worker's process held for the job at any time",
    "limit": "The most memory that the worker's process may take",
    "waiting for the first": "Warm-up: the worker waits before its first backward action",
    "waiting in between": "Steady part: the worker waits between its first backward and its last forward action",
    "waiting for the last": "Drain: the worker waits after its last forward action",
    "forward": "Computing a stage's output from its input",
    "input gradient": "Computing the gradient of a stage's input, which the stage before needs",
    "weight gradient": "Computing the gradient of a stage's weights",
    "update": "The optimizer changes the weights",
    "sending": "Sending arrays to other workers",
    "evaluation": "Computing the loss of the validation rows",
    "checkpoint": "Copying the state of the layers for a checkpoint; writing it at the end of the run",
    "recovery": "From the last step before a worker was lost until all workers go on",
    "newest checkpoint": "The step from which the job would go on if it lost a worker now",
    "time to write": "How long the slowest worker wrote its files, in the background",
    "training stood still": "How long the slowest worker copied its state; after that it trained on",
    "found after": "Within how many seconds the loss was found",
    "replaced after": "From finding the loss until the new process was ready and all workers had gone back to the "
    "checkpoint",
    "new step after": "From finding the loss to the first new step",
    "made again": "The steps since the checkpoint, and whether they came out with the same bits",
    "other": "Time outside of all these, such as waiting for orders",
}
