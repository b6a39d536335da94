-- Version 2: the oldest refusals whose MAC did not hold are found without a look at the others.

CREATE INDEX submissions_unverified ON submissions (id) WHERE verified = 0;
