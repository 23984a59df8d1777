// Live updates and what else forms alone cannot do. Every page works without it.
"use strict";
