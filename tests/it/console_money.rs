//! *Money*: what each agent spent on its days, its limits and who set them, and the calls behind a day.
